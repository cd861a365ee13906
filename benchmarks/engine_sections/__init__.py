"""The sections of `benchmarks/engine.py`.

models      GGUF files of random weights at real shapes
tools       llama.cpp's own programs, built from the sources that the binding ships
load        what other processes used of the machine meanwhile
figures     medians of ratios, percentiles, targets, tables
asking      the engine, by the public way in
reference   a process of its own that holds the baselines on the bare binding
throughput, crowded, mixed, stats, labels, messages, prefix, memory    one section each
"""
