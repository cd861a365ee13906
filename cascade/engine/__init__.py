"""llama.cpp in process: one decode thread owns every model; requests are decoded together.

    binding    the only import of llama_cpp; its log goes to `logging`
    header     files that llama.cpp would abort on, refused before it sees them
    worker     the decode thread: its queue, jobs that take turns, and those that wait for a `ticket`
    library    the loaded files, each once, unloaded by LRU under one bound of memory
    weights    a loaded GGUF file: vocabulary, metadata, contexts and their schedulers
    context    one llama.cpp context of a `shape`: batches in, logits rows out; `abort` ends a decode
    scheduler  continuous batching of the `sequence`s of one context: `slots`, `plan` of the next decode
    prefix     what prompts have in common, evaluated once; `state` fits it to contexts of any size
    stats      log-probability, margin and entropy of one logits row, and of a text so far
    pace       noticing contention; `noise` is how far log-probabilities depend on company
    render     text or conversation → prompt tokens, through the file's chat template if it has one
    template   that template, in a sandbox
    tasks      the prompt contract of a bundled expert
    labels     exact distribution over a closed label set
    search     the best label alone, with proof
    sampling   the next token, by llama.cpp's samplers
    grammar    which tokens may come next
    stops      stop strings in a text that arrives in pieces
    generate   free text, token by token; `writer` puts it together
    embed      one vector for a text; `similar`: labels by example
    adapter    LoRA
    session    one configured model of a graph: prompt → answer

Importing this package does not import llama.cpp; `worker` and the files above it do so on use.
"""
