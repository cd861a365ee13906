"""Train or distil a small task-specific expert and write it as GGUF; needs the `train` extra."""
