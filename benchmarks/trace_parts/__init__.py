"""The phases of benchmarks/trace.py."""
