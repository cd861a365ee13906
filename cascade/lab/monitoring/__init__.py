"""Drift of live confidence, and what to do about it."""
