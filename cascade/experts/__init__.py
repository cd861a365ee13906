"""Bundled experts: GGUF files and their model cards."""
