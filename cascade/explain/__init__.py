"""A stored run in plain words. Private: `cascade trace explain` and the viewer show it."""
