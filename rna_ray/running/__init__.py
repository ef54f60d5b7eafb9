"""Doing what a plan asks for: in this process, or on Ray."""
