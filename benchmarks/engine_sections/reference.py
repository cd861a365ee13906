"""The baselines on the binding alone, in a process of their own: a second decoding thread would slow ours.

Started as a command, it reads one JSON object a line and answers each with one: {"do": NAME, ...} → figures.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

Json = dict[str, Any]
_LINE = 64 * 2**20  # bytes that one line may have


class Reference:
    """A running reference process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def do(self, name: str, **parameters: Any) -> Json:
        """Have one thing done and return its figures.

        Raises:
            RuntimeError: the process ended.
        """
        send, receive = self._process.stdin, self._process.stdout
        if send is None or receive is None:
            raise RuntimeError("the reference process has no pipes")
        send.write(json.dumps({"do": name, **parameters}).encode() + b"\n")
        await send.drain()
        line = await receive.readline()
        if not line:
            raise RuntimeError(f"the reference process ended during {name!r}; its error is above")
        answer: Json = json.loads(line)
        return answer


@asynccontextmanager
async def reference() -> AsyncIterator[Reference]:
    """Start the process; it ends with the block."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(Path(__file__)), stdin=pipe, stdout=pipe, limit=_LINE
    )
    try:
        yield Reference(process)
    finally:
        if process.stdin is not None:
            process.stdin.close()
        await process.wait()


def open_locked(state: Json, task: Json) -> Json:
    """Load a `Llama` for `mixed`."""
    from llama_cpp import Llama

    state["llama"] = Llama(
        task["path"],
        n_ctx=task["n_ctx"],
        n_threads=task["threads"],
        n_threads_batch=task["threads"],
        verbose=False,
    )
    state["llama"].create_completion(task["warm"], max_tokens=2, temperature=0.0)
    return {}


def mixed(state: Json, task: Json) -> Json:
    """Answer a list of arrivals with a `Llama` behind a lock, in a pool of threads."""
    llama, lock = state["llama"], Lock()
    started = time.perf_counter()

    def answer(prompt: list[int], tokens: int) -> list[float]:
        with lock:
            pieces = llama.create_completion(prompt, max_tokens=tokens, temperature=0.0, stream=True)
            return [
                time.perf_counter() - started for piece in pieces if not piece["choices"][0]["finish_reason"]
            ]

    with ThreadPoolExecutor(task["workers"]) as pool:
        futures = []
        for at, prompt, tokens in task["arrivals"]:
            time.sleep(max(0.0, started + at - time.perf_counter()))
            futures.append(pool.submit(answer, prompt, tokens))
        return {"tokens": [future.result() for future in futures]}


def open_bare(state: Json, task: Json) -> Json:
    """Load a model and a context for `prompt` and `labels`."""
    from engine_sections.bare import Bare

    state["bare"] = Bare(task["path"], task["threads"], task["n_ctx"])
    return {}


def prompt(state: Json, task: Json) -> Json:
    """Time one forward pass over a prompt, with its last token's logits."""
    bare = state["bare"]
    bare.clear()
    started = time.perf_counter()
    bare.feed(task["prompt"], 0, rows=1)
    return {"seconds": time.perf_counter() - started}


def reuse(state: Json, task: Json) -> Json:
    """Time a prompt in one forward pass, and the same with its first `shared` tokens there already."""
    bare, shared = state["bare"], task["shared"]
    bare.clear()
    started = time.perf_counter()
    bare.feed(task["prompt"], 0, rows=1)
    whole = time.perf_counter() - started
    bare.cut(shared)
    started = time.perf_counter()
    bare.feed(task["prompt"][shared:], shared, rows=1)
    return {"whole": whole, "rest": time.perf_counter() - started}


def labels(state: Json, task: Json) -> Json:
    """Score labels with one decode each on the prompt's cells; `score` leaves the prompt's time out."""
    bare, n_prompt = state["bare"], len(task["prompt"])
    bare.clear()
    started = time.perf_counter()
    first = bare.feed(task["prompt"], 0, rows=1)[0].copy()
    read = time.perf_counter()
    scores = []
    for label in task["labels"]:
        score = bare.logprob(first, label[0])
        if len(label) > 1:
            rows = bare.feed(label[:-1], n_prompt, rows=len(label) - 1)
            score += sum(bare.logprob(row, token) for row, token in zip(rows, label[1:], strict=True))
            bare.cut(n_prompt)
        scores.append(score)
    return {"prompt": read - started, "score": time.perf_counter() - read, "logprobs": scores}


def nodes(state: Json, task: Json) -> Json:
    """Time one decode of `tokens` after a prompt, with a logits row for each, without the prompt's time."""
    bare, prompt = state["bare"], task["prompt"]
    bare.clear()
    bare.feed(prompt, 0, rows=1)
    started = time.perf_counter()
    bare.feed(task["tokens"], len(prompt), rows=len(task["tokens"]))
    return {"seconds": time.perf_counter() - started}


def naive(state: Json, task: Json) -> Json:
    """Time one label's scoring with nothing kept: prompt and label in one pass, the mean over `labels`."""
    bare = state["bare"]
    started = time.perf_counter()
    for label in task["labels"]:
        bare.clear()
        rows = bare.feed([*task["prompt"], *label[:-1]], 0, rows=len(label))
        sum(bare.logprob(row, token) for row, token in zip(rows, label, strict=True))
    return {"seconds": (time.perf_counter() - started) / len(task["labels"])}


def python_sort(_state: Json, task: Json) -> Json:
    """Time what llama-cpp-python does for a token with `logprobs=5`: it sorts the vocabulary in Python."""
    from llama_cpp import Llama

    rows = np.random.default_rng(0).standard_normal((8, task["vocab"])).astype(np.float32)
    times = []
    for row in rows[: task["repeats"]]:
        started = time.perf_counter()
        logprobs = Llama.logits_to_logprobs(row)
        sorted(zip(logprobs, range(len(logprobs)), strict=True), reverse=True)[:5]
        times.append(time.perf_counter() - started)
    return {"seconds": float(np.median(times))}


_TASKS: dict[str, Callable[[Json, Json], Json]] = {
    found.__name__: found
    for found in (open_locked, mixed, open_bare, prompt, reuse, labels, nodes, naive, python_sort)
}


def main() -> None:
    """Answer line by line until the input ends."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    state: Json = {}
    for line in sys.stdin:
        task = json.loads(line)
        sys.stdout.write(json.dumps(_TASKS[task["do"]](state, task)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
