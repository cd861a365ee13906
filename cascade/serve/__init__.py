"""The trace viewer: pages without scripts, and the same as JSON."""
