"""What a grammar costs a token, beside llama.cpp's chain: `python benchmarks/grammar.py [--quick] [--json]`.

A JSON Schema's grammar is followed by greedy choice over rows of random logits, once through llama.cpp's
grammar sampler over the whole vocabulary, once through `engine.sampling`, which looks at the chosen token
first. "fitting" rows have an allowed token on top, as a model that was asked for JSON mostly does; "near"
rows have ten others above it; in "far" rows it is anywhere. Both ways must choose the same tokens. No model
is decoded.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from common import Figures, guarded, print_json, table

from cascade.engine.grammar import CANDIDATE, Grammar
from cascade.engine.sampling import Sampler, Sampling
from cascade.engine.weights import Weights
from cascade.formats.json_grammar import schema_grammar

VOCABULARIES = (4096, 49152, 151936)
KINDS = ("fitting", "near", "far")
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 40},
        "amounts": {"type": "array", "items": {"type": "integer"}, "maxItems": 8},
        "kind": {"enum": ["invoice", "receipt", "order"]},
    },
    "required": ["name", "amounts", "kind"],
}


def vocabulary(path: Path, size: int) -> Path:
    """Write a GGUF with `size` byte-level tokens of one to eight letters and the smallest of networks."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    extra = iter(range(256, 512))
    letters = [chr(byte) if byte in plain else chr(next(extra)) for byte in range(256)]
    random = np.random.default_rng(0)
    tokens = dict.fromkeys(letters)
    while len(tokens) < size - 1:
        tokens["".join(letters[i] for i in random.integers(32, 126, int(random.integers(2, 9))))] = None
    writer = gguf.GGUFWriter(str(path), "llama")
    for add, value in (
        (writer.add_context_length, 64), (writer.add_embedding_length, 32), (writer.add_block_count, 1),
        (writer.add_feed_forward_length, 32), (writer.add_head_count, 1), (writer.add_head_count_kv, 1),
        (writer.add_layer_norm_rms_eps, 1e-5), (writer.add_rope_dimension_count, 32),
        (writer.add_tokenizer_model, "gpt2"), (writer.add_tokenizer_pre, "gpt-2"),
        (writer.add_token_list, [*tokens, "<|end|>"]), (writer.add_token_types, [1] * (size - 1) + [3]),
        (writer.add_token_merges, ["a b"]), (writer.add_bos_token_id, size - 1),
        (writer.add_eos_token_id, size - 1),
    ):  # fmt: skip
        add(value)
    block = {f"blk.0.{name}.weight": (32, 32) for name in ("attn_q", "attn_k", "attn_v", "attn_output")}
    block |= {f"blk.0.{name}.weight": (32, 32) for name in ("ffn_gate", "ffn_up", "ffn_down")}
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (size, 32),
        "output_norm.weight": (32,),
        **block,
    }
    shapes |= {"blk.0.attn_norm.weight": (32,), "blk.0.ffn_norm.weight": (32,)}
    for name, shape in shapes.items():
        writer.add_tensor(name, np.ones(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def plain_choice(grammar: Grammar, row: np.ndarray, candidates: np.ndarray) -> int:
    """Choose as llama.cpp's chain of grammar and greedy does."""
    candidates["id"], candidates["logit"] = np.arange(len(row)), row
    grammar.mask(candidates)
    return int(candidates["logit"].argmax())


def measure(weights: Weights, texts: int, kind: str) -> Figures:
    """Follow the grammar through `texts` texts both ways; return µs a token and how often they agreed."""
    random, text = np.random.default_rng(1), schema_grammar(SCHEMA)
    seconds: dict[str, list[float]] = {"plain": [], "ours": [], "none": []}
    candidates, equal = np.zeros(weights.n_vocab, CANDIDATE), 0
    for _ in range(texts):
        grammar, sampler = Grammar(weights, text), Sampler(weights, Sampling(1, grammar=text))
        for _ in range(200):
            row = random.standard_normal(weights.n_vocab, dtype=np.float32)
            row[128:256] = -20.0  # bytes: llama.cpp takes sequences of them that are not UTF-8
            if kind != "far":
                row[plain_choice(grammar, row, candidates)] = 9.0
            if kind == "near":
                row[random.integers(256, weights.n_vocab, 10)] = np.linspace(9.1, 9.9, 10)
            times = [time.perf_counter()]
            theirs = plain_choice(grammar, row, candidates)
            times.append(time.perf_counter())
            ours = sampler.choose(None, 0, row, int(row.argmax()))
            times.append(time.perf_counter())
            int(row.argmax())
            times.append(time.perf_counter())
            for name, start, end in zip(seconds, times, times[1:], strict=False):
                seconds[name].append(end - start)
            equal += ours == theirs
            if weights.is_end(theirs):
                break
            grammar.accept(theirs)
        grammar.close()
        sampler.close()
    cost = {f"{name}_us": 1e6 * statistics.median(values) for name, values in seconds.items()}
    return cost | {
        "vocabulary": weights.n_vocab,
        "rows": kind,
        "tokens": len(seconds["ours"]),
        "equal": equal,
        "ratio": cost["plain_us"] / cost["ours_us"],
    }


def main() -> None:
    """Measure every vocabulary with both kinds of rows."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--json", action="store_true", help="print one JSON object in place of a table")
    arguments.add_argument("--quick", action="store_true", help="one text for each figure")
    options = arguments.parse_args()
    rows: list[dict[str, Any]] = []
    start = time.process_time(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        for size in VOCABULARIES[: 2 if options.quick else None]:
            weights = Weights(vocabulary(Path(folder) / f"{size}.gguf", size))
            rows += [measure(weights, 1 if options.quick else 10, kind) for kind in KINDS]
            weights.close()
    load = 1.0 - (time.process_time() - start[0]) / (time.perf_counter() - start[1])
    if options.json:
        print_json({"results": rows, "waited": load})
        return
    shown = [
        [
            f"{row['vocabulary']:,}", row["rows"], f"{row['plain_us']:.0f}", f"{row['ours_us']:.0f}",
            f"{row['none_us']:.0f}", f"{row['ratio']:.1f}", f"{row['equal']} of {row['tokens']}",
        ]
        for row in rows
    ]  # fmt: skip
    columns = ["vocabulary", "rows", "llama.cpp µs", "here µs", "no grammar µs", "ratio", "equal choices"]
    table("Choosing a token under a grammar", columns, shown)
    print(f"load check: {load:.0%} of the time this process waited for the processor or the disk")


if __name__ == "__main__":
    guarded(main)
