"""llama.cpp in process: one decode thread owns every model; token statistics and exact label distributions.

    binding   the only import of llama_cpp; its log goes to `logging`
    weights   a loaded GGUF file: vocabulary, metadata, contexts; shared by path
    context   one llama.cpp context: batches in, checked logits rows out
    stats     log-probability, margin and entropy of one logits row
    render    text → prompt tokens, through the file's chat template if it has one
    tasks     the prompt contract of a bundled expert
    labels    exact distribution over a closed label set
    generate  free text, token by token
    worker    the decode thread and its queue

Importing this package does not import llama.cpp; `worker` and the files above it do so on use.
"""
