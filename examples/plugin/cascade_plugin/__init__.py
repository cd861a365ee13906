"""Kinds that this package adds to cascade: a model, a confidence method and a gate, one module each."""
