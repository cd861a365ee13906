"""Training or distilling a small task-specific expert, written as GGUF; needs the `train` extra."""
