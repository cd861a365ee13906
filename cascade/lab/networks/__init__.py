"""Encoders and students in PyTorch: fine-tuning, distilling, their GGUF files; needs the extra `train`."""
