"""Bundled experts: GGUF files and their model cards. Private: a graph names them as `bundled:NAME`."""
