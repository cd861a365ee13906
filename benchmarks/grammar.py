"""What a grammar costs a token, and whether its texts are valid.

    python benchmarks/grammar.py [--quick] [--json]

Speed: a JSON Schema's grammar is followed by greedy choice over rows of random logits, through llama.cpp's
grammar sampler over the whole vocabulary, and through `engine.sampling`, which looks at the chosen token
first. "fitting" rows have an allowed token on top, as a model that was asked for JSON mostly does; "near"
rows have ten others above it; in "far" rows it is anywhere. Both must choose the same tokens. No model is
decoded.

Where `llguidance` is installed (`pip install llguidance`), it is measured beside them: it checks the chosen
token first as well, and else computes its mask of the vocabulary. Its grammar allows other white space, so it
follows texts of its own. Validity is measured with schemas of several kinds: which are taken, and how many
texts, chosen at random among the allowed tokens, satisfy their schema.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, files, version
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import gguf
import jsonschema
import numpy as np
from common import Figures, guarded, print_json, table

from cascade.engine.grammar import CANDIDATE, Grammar
from cascade.engine.sampling import Sampler, Sampling
from cascade.engine.weights import Weights
from cascade.errors import ConfigError
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
    "additionalProperties": False,
}
_ANIMAL: dict[str, Any] = {
    "type": "object",
    "properties": {"kind": {}, "age": {"type": "integer"}},
    "required": ["kind"],
}
VALIDITY: dict[str, Any] = {
    "object": SCHEMA,
    "optional properties": {
        "type": "object",
        "properties": {"a": {"type": "null"}, "b": {"type": "boolean"}},
    },
    "map": {"type": "object", "additionalProperties": {"type": "boolean"}},
    "tuple": {"type": "array", "prefixItems": [{"type": "null"}, {"type": "boolean"}], "items": False},
    "array bounds": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 3},
    "lengths": {"type": "string", "minLength": 2, "maxLength": 5},
    "escapes in enum": {"enum": ['quo"te', "back\\slash", "line\nbreak", 1, None, {"x": [1.5]}]},
    "date": {"type": "string", "format": "date"},
    "date-time": {"type": "string", "format": "date-time"},
    "uuid": {"type": "string", "format": "uuid"},
    "integer bounds": {"type": "integer", "minimum": -12, "exclusiveMaximum": 7},
    "number bounds": {"type": "number", "exclusiveMinimum": 0, "maximum": 10},
    "anyOf": {"anyOf": [{"type": "integer"}, {"type": "array", "items": {"type": "null"}}]},
    "oneOf, by tag": {
        "oneOf": [
            _ANIMAL | {"properties": _ANIMAL["properties"] | {"kind": {"const": "cat"}}},
            _ANIMAL | {"properties": _ANIMAL["properties"] | {"kind": {"const": "dog"}}},
        ]
    },
    "oneOf, by tag of referred schemas": {
        "oneOf": [{"$ref": "#/$defs/cat"}, {"$ref": "#/$defs/dog"}],
        "$defs": {
            "cat": {"type": "object", "properties": {"kind": {"const": "cat"}}, "required": ["kind"]},
            "dog": {"type": "object", "properties": {"kind": {"enum": ["dog", "pup"]}}, "required": ["kind"]},
        },
    },
    "oneOf, by type": {"oneOf": [{"type": "integer"}, {"type": "string", "maxLength": 3}]},
    "recursion": {
        "$ref": "#/$defs/tree",
        "$defs": {
            "tree": {
                "type": "object",
                "properties": {"left": {"$ref": "#/$defs/tree"}, "leaf": {"type": "integer", "maximum": 9}},
                "required": ["leaf"],
            }
        },
    },
    "reference to itself": {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}},
    "pattern": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{1,3}$"},
    "multipleOf": {"type": "integer", "multipleOf": 7, "minimum": 0, "maximum": 100},
    "fractional bounds": {"type": "number", "minimum": 0.25, "maximum": 0.75},
    "allOf of two": {"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 9}]},
    "patternProperties": {"type": "object", "patternProperties": {"^x": {"type": "null"}}},
    "uniqueItems": {"type": "array", "items": {"enum": [1, 2]}, "uniqueItems": True},
    "minProperties": {"type": "object", "additionalProperties": {"type": "null"}, "minProperties": 1},
    "not": {"type": "integer", "not": {"const": 3}},
}
ENDING = frozenset(b'"]},:')  # bytes that are drawn more often, so that random texts end


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
        "ours_mean_us": 1e6 * statistics.fmean(seconds["ours"]),
        "vocabulary": weights.n_vocab,
        "rows": kind,
        "tokens": len(seconds["ours"]),
        "equal": equal,
        "ratio": cost["plain_us"] / cost["ours_us"],
    }


class Guide(Protocol):
    """A grammar that is followed token by token."""

    def allowed(self) -> np.ndarray:
        """Return the tokens that may come next."""
        ...

    def accept(self, token: int) -> None:
        """Advance by `token`."""
        ...


class OwnGuide:
    """A schema's grammar as the engine follows it."""

    def __init__(self, weights: Weights, schema: object) -> None:
        self._weights, self._grammar = weights, Grammar(weights, schema_grammar(schema))
        self._candidates = np.zeros(weights.n_vocab, CANDIDATE)

    def allowed(self) -> np.ndarray:
        """Return the tokens that may come next."""
        self._candidates["id"], self._candidates["logit"] = np.arange(len(self._candidates)), 0.0
        self._grammar.mask(self._candidates)
        tokens = np.flatnonzero(self._candidates["logit"] == 0.0)
        return np.array([token for token in tokens if self._grammar.readable(int(token))])

    def accept(self, token: int) -> None:
        """Advance by `token`."""
        self._grammar.accept(token)


class Guidance:
    """llguidance over one vocabulary, made as its own module for llama.cpp does."""

    def __init__(self, weights: Weights) -> None:
        import llguidance
        from llguidance.llamacpp import lltokenizer_from_vocab

        start = time.perf_counter()
        self.tokenizer: Any = lltokenizer_from_vocab(weights.vocab)
        self.build_seconds = time.perf_counter() - start
        self.n_vocab, self._matcher = weights.n_vocab, llguidance.LLMatcher

    def start(self, schema: object) -> GuidanceGuide:
        """Return a guide at the start of a text.

        Raises:
            ConfigError: the schema is not taken.
        """
        try:
            grammar = self._matcher.grammar_from_json_schema(json.dumps(schema))
            matcher = self._matcher(self.tokenizer, grammar)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        if matcher.is_error():
            raise ConfigError(matcher.get_error())
        return GuidanceGuide(matcher, self.n_vocab)


class GuidanceGuide:
    """One text that llguidance follows."""

    def __init__(self, matcher: Any, n_vocab: int) -> None:
        self._matcher, self._n_vocab = matcher, n_vocab

    def allowed(self) -> np.ndarray:
        """Return the tokens that may come next."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        return np.flatnonzero(np.unpackbits(bits, bitorder="little")[: self._n_vocab])

    def choose(self, row: np.ndarray, best: int) -> int:
        """Choose greedily and advance, looking at the best token first."""
        if self._matcher.validate_tokens([best]) != 1:
            allowed = self.allowed()
            best = int(allowed[row[allowed].argmax()])
        self.accept(best)
        return best

    def accept(self, token: int) -> None:
        """Advance by `token`."""
        self._matcher.consume_token(token)


def measure_guidance(guidance: Guidance, weights: Weights, texts: int, kind: str) -> Figures:
    """Follow llguidance's grammar through `texts` texts; return µs a token."""
    random_, seconds = np.random.default_rng(1), []
    for _ in range(texts):
        guide = guidance.start(SCHEMA)
        for _ in range(200):
            row = random_.standard_normal(weights.n_vocab, dtype=np.float32)
            row[128:256] = -20.0
            if kind != "far":
                allowed = guide.allowed()
                row[allowed[row[allowed].argmax()]] = 9.0
            if kind == "near":
                row[random_.integers(256, weights.n_vocab, 10)] = np.linspace(9.1, 9.9, 10)
            best, start = int(row.argmax()), time.perf_counter()
            token = guide.choose(row, best)
            seconds.append(time.perf_counter() - start)
            if weights.is_end(token):
                break
    return {
        "llguidance_us": 1e6 * statistics.median(seconds),
        "llguidance_mean_us": 1e6 * statistics.fmean(seconds),
        "llguidance_tokens": len(seconds),
    }


class Validity(NamedTuple):
    """How many texts a grammar made, how many of them ended, and how many of those satisfy the schema."""

    texts: int
    ended: int
    valid: int


def validity(
    weights: Weights, schema: Any, start: Callable[[Any], Guide], texts: int, most_tokens: int = 120
) -> Validity | None:
    """Follow a grammar through random texts; None if the schema is not taken."""
    check = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())
    draw, ended, valid = random.Random(0), 0, 0
    for _ in range(texts):
        try:
            guide = start(schema)
        except ConfigError:
            return None
        text = b""
        for _ in range(most_tokens):
            allowed = guide.allowed().tolist()
            if not allowed:
                break
            ends = [t for t in allowed if weights.is_end(t) or weights.piece(t) in map(_byte, ENDING)]
            token = draw.choice(ends if ends and draw.random() < 0.4 else allowed)
            if weights.is_end(token):
                ended += 1
                with contextlib.suppress(ValueError):  # not JSON, or not UTF-8
                    valid += check.is_valid(json.loads(text))
                break
            text += weights.piece(token)
            guide.accept(token)
    return Validity(texts, ended, valid)


def _byte(value: int) -> bytes:
    return bytes([value])


def footprint() -> Figures | None:
    """Return what installing and importing llguidance costs; None if it is not installed."""
    try:
        parts = files("llguidance") or []
    except PackageNotFoundError:
        return None
    size = sum(Path(str(part.locate())).stat().st_size for part in parts if "__pycache__" not in str(part))
    code = "import time; t = time.perf_counter(); import llguidance; print(time.perf_counter() - t)"
    runs = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)  # noqa: S603
        for _ in range(5)
    ]
    return {"version": version("llguidance"), "bytes": size, "import_seconds": statistics.median(runs)}


def main() -> None:
    """Measure every vocabulary with all kinds of rows, then the validity of every schema."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--json", action="store_true", help="print one JSON object in place of tables")
    arguments.add_argument("--quick", action="store_true", help="one text for each figure")
    options = arguments.parse_args()
    texts, sizes = (1, VOCABULARIES[:2]) if options.quick else (10, VOCABULARIES)
    rows: list[Figures] = []
    valid: dict[str, dict[str, Validity | None]] = {}
    start, other = (time.process_time(), time.perf_counter()), footprint()
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            weights = Weights(vocabulary(Path(folder) / f"{size}.gguf", size))
            guidance = Guidance(weights) if other else None
            for kind in KINDS:
                rows.append(measure(weights, texts, kind))
                if guidance is not None:
                    rows[-1] |= measure_guidance(guidance, weights, texts, kind)
                    rows[-1]["llguidance_build_seconds"] = guidance.build_seconds
            if size == sizes[0]:
                valid = validities(weights, guidance, 3 * texts)
            weights.close()
    load = 1.0 - (time.process_time() - start[0]) / (time.perf_counter() - start[1])
    if options.json:
        print_json({"results": rows, "validity": valid, "llguidance": other, "waited": load})
        return
    show(rows, valid, other)
    print(f"load check: {load:.0%} of the time this process waited for the processor or the disk")


def validities(
    weights: Weights, guidance: Guidance | None, texts: int
) -> dict[str, dict[str, Validity | None]]:
    """Return the validity of each schema's texts, here and by llguidance."""
    by_schema: dict[str, dict[str, Validity | None]] = {}
    for name, schema in VALIDITY.items():
        by_schema[name] = {"here": validity(weights, schema, lambda each: OwnGuide(weights, each), texts)}
        if guidance is not None:
            by_schema[name]["llguidance"] = validity(weights, schema, guidance.start, texts)
    return by_schema


def show(rows: list[Figures], valid: dict[str, dict[str, Validity | None]], other: Figures | None) -> None:
    """Print the tables."""
    shown = [
        [
            f"{row['vocabulary']:,}", row["rows"], f"{row['plain_us']:.0f}",
            f"{row['ours_us']:.0f} / {row['ours_mean_us']:.0f}",
            f"{row['llguidance_us']:.0f} / {row['llguidance_mean_us']:.0f}" if other else "–",
            f"{row['none_us']:.0f}", f"{row['ratio']:.1f}", f"{row['equal']} of {row['tokens']}",
        ]
        for row in rows
    ]  # fmt: skip
    columns = [
        "vocabulary", "rows", "llama.cpp µs", "here µs, median / mean", "llguidance µs, median / mean",
        "no grammar µs", "ratio", "equal choices",
    ]  # fmt: skip
    table("Choosing a token under a grammar", columns, shown)
    lines = [[name, *(_shown(each) for each in by.values())] for name, by in valid.items()]
    table("Random texts that satisfy their schema", ["schema", *next(iter(valid.values()))], lines)
    if other is None:
        print("llguidance is not installed: pip install llguidance")
        return
    built = {row["vocabulary"]: row["llguidance_build_seconds"] for row in rows}
    tokenizers = ", ".join(f"{seconds:.2f} s for {size:,} tokens" for size, seconds in built.items())
    print(
        f"llguidance {other['version']}: {other['bytes'] / 1e6:.1f} MB installed, "
        f"{other['import_seconds']:.2f} s to import; its tokenizer takes {tokenizers}"
    )


def _shown(each: Validity | None) -> str:
    return "not taken" if each is None else f"{each.valid} of {each.ended}"


if __name__ == "__main__":
    guarded(main)
