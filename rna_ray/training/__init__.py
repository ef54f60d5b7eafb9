"""Training one unit on one device, resumable at any epoch."""
