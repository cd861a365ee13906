"""llama.cpp in process: one decode thread owns every model and decodes requests together.

A request passes through these files from top to bottom:

    worker     the decode thread: its queue, and jobs that take turns
    ticket     what a job waits for while others decode for it
    session    one configured model of a graph: request in, answer out
    render     text or a conversation to prompt tokens, through the file's chat template if it has one
    outside    text of a request to tokens without a meaning of their own
    template   a chat template: what it can do, and a conversation through it
    features   what a template can do, as a record
    sandbox    the Jinja environment of templates, which are foreign code
    tasks      the prompt contract of a bundled expert
    labels     the exact distribution over a closed label set, from a tree of their tokens
    search     the best label alone, with proof
    embed      one vector for a text
    embed_queue  the texts of many requests in one decode, equal ones once
    experts    learned heads on an encoder's vectors
    head       from a vector and a text to labels, P(correct) and a score of the unknown
    ngrams     hashed n-grams of words and characters
    examples   labels by example: the nearest centroid of their embeddings
    generate   free text, token by token, up to a stop string
    sampling   the next token, by llama.cpp's samplers
    grammar    which tokens may come next
    stats      log-probability, margin and entropy of one logits row, and of a text so far
    scheduler  continuous batching: what the next decode of a context holds
    sequence   one prompt that a scheduler continues
    slots      which sequence has which slot of a context
    prefix     what prompts have in common is evaluated once, and kept in memory or on disk
    threads    how many threads a decode uses: the default, noticing contention, backing off
    weights    a loaded GGUF file, and the cache of all loaded files under one bound of memory
    context    one llama.cpp context: batches in, logits rows out, saved states
    batch      the tokens of one decode in llama.cpp's own layout
    memory     large pages for weights, and pages of their own for saved states
    binding    the only import of llama_cpp; its log goes to `logging`

The names below are what the rest of cascade uses. Importing the package imports neither llama.cpp nor NumPy;
a name that needs them is imported on first access, usually by the first job on the decode thread.
"""

from typing import TYPE_CHECKING

from cascade._lazy import lazy_names
from cascade.engine.threads import available_cores, default_threads
from cascade.engine.ticket import Ticket
from cascade.engine.worker import MAX_WAITING, JobSteps, decode_worker

if TYPE_CHECKING:
    from cascade.engine.session import EngineAnswer, EngineRequest, Session, SessionOptions
    from cascade.engine.stats import RunningStats, TokenStats
    from cascade.engine.weights import ModelCache, Weights

__all__ = [
    "MAX_WAITING",
    "EngineAnswer",
    "EngineRequest",
    "JobSteps",
    "ModelCache",
    "RunningStats",
    "Session",
    "SessionOptions",
    "Ticket",
    "TokenStats",
    "Weights",
    "available_cores",
    "decode_worker",
    "default_threads",
]

if not TYPE_CHECKING:  # a type checker reads the imports above instead
    __getattr__ = lazy_names(
        __name__,
        {
            ".session": "EngineAnswer EngineRequest Session SessionOptions",
            ".stats": "RunningStats TokenStats",
            ".weights": "ModelCache Weights",
        },
    )
