"""Running requests through a loaded graph."""
