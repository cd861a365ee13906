"""Drift of live confidence, and what to do about it; promoting a proved model, and rolling it back."""
