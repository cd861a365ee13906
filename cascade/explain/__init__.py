"""A stored run in plain words."""
