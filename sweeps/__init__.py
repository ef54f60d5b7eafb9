"""The sweeps that ship with rna-ray: one file for each table or figure, and quickstart."""
