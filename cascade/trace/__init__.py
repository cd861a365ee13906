"""The store of runs, and explaining them in words."""
