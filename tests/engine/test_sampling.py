"""Tokens are chosen as by llama.cpp's plain chain, and never outside the grammar."""

from __future__ import annotations

import ctypes
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from decoding import drain, with_weights
from gguf_maker import make_gguf

from cascade.engine.binding import api
from cascade.engine.context import Context, ContextShape
from cascade.engine.generate import GeneratedText, GenerateOptions, generate, prefill
from cascade.engine.grammar import CANDIDATE, Grammar, token_array
from cascade.engine.sampling import Sampler, Sampling
from cascade.engine.weights import Weights
from cascade.errors import ModelError
from cascade.formats.json_grammar import schema_grammar

PROMPT = np.array([72, 101, 257, 111], np.int32)
LIST = 'root ::= "[" [a-f]+ ("," " "? [0-9a-f]{1,3})* "]"\n'


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_gguf(tmp_path_factory.mktemp("gguf") / "m.gguf", seed=3, n_ctx=1024)


def write(weights: Weights, sampling: Sampling, emit: Callable[[str], None] | None = None) -> GeneratedText:
    return drain(
        generate(weights, weights.scheduler(ContextShape(1024, 1)), PROMPT, sampling, GenerateOptions(emit))
    )


def plain_chain(weights: Weights, context: Context, sampling: Sampling, steps: int) -> list[int]:
    """Choose as llama.cpp does: apply the grammar to the whole vocabulary, then the rest of the chain."""
    chain = api.llama_sampler_chain_init(api.llama_sampler_chain_default_params())
    assert sampling.grammar is not None
    api.llama_sampler_chain_add(
        chain, api.llama_sampler_init_grammar(weights.vocab, sampling.grammar.encode(), b"root")
    )
    api.llama_sampler_chain_add(chain, api.llama_sampler_init_greedy())
    drain(prefill(context, PROMPT))
    chosen = []
    for position in range(len(PROMPT), len(PROMPT) + steps):
        chosen.append(int(api.llama_sampler_sample(chain, context.handle, -1)))
        if weights.is_end(chosen[-1]):
            break
        context.feed(np.array(chosen[-1:], np.int32), position, output=True)
    api.llama_sampler_free(chain)
    return chosen


def engine_choice(weights: Weights, context: Context, sampling: Sampling, steps: int) -> list[int]:
    sampler = Sampler(weights, sampling)
    drain(prefill(context, PROMPT))
    chosen = []
    for position in range(len(PROMPT), len(PROMPT) + steps):
        row = context.rows()[0]
        chosen.append(sampler.choose(context.handle, -1, row, int(row.argmax())))
        if weights.is_end(chosen[-1]):
            break
        context.feed(np.array(chosen[-1:], np.int32), position, output=True)
    sampler.close()
    return chosen


@pytest.mark.parametrize("seed", range(6))
def test_greedy_choice_under_a_grammar_equals_the_plain_chain(tmp_path: Path, seed: int) -> None:
    path = make_gguf(tmp_path / "m.gguf", seed=seed)
    sampling = Sampling(40, grammar=LIST)

    def both(weights: Weights) -> tuple[list[int], list[int]]:
        context = weights.context(ContextShape(512, 1))
        return tuple(make(weights, context, sampling, 40) for make in (engine_choice, plain_chain))  # type: ignore[return-value]

    ours, theirs = with_weights(path, both)
    assert ours == theirs
    assert len(ours) > 3


def test_drawing_under_a_grammar_follows_the_grammars_own_distribution(model: Path) -> None:
    grammar, temperature, draws = "root ::= [a-m] [n-z]", 2.0, 2000

    def run(weights: Weights) -> tuple[np.ndarray, Counter[int]]:
        context = weights.context(ContextShape(512, 1))
        row = drain(prefill(context, PROMPT)).copy()
        counts: Counter[int] = Counter()
        for seed in range(draws):
            sampler = Sampler(weights, Sampling(1, temperature, seed=seed, grammar=grammar))
            counts[sampler.choose(context.handle, -1, row, int(row.argmax()))] += 1
            sampler.close()
        return row.astype(np.float64), counts

    row, counts = with_weights(model, run)
    letters = np.array([ord(c) for c in "abcdefghijklm"])  # the token of a byte has its number
    weight = np.exp((row[letters] - row[letters].max()) / temperature)
    assert set(counts) <= set(letters.tolist())
    for token, expected in zip(letters.tolist(), weight / weight.sum(), strict=True):
        error = np.sqrt(expected * (1 - expected) / draws)
        assert abs(counts[token] / draws - expected) < 5 * error


@pytest.mark.parametrize(
    ("settings", "kept"),
    [({"top_p": 0.3}, lambda p: np.cumsum(p) - p < 0.3), ({"min_p": 0.4}, lambda p: p >= 0.4 * p[0])],
)
def test_top_p_and_min_p_leave_the_improbable_out(model: Path, settings: Any, kept: Any) -> None:
    def run(weights: Weights) -> tuple[np.ndarray, set[int]]:
        context = weights.context(ContextShape(512, 1))
        row = drain(prefill(context, PROMPT)).copy()
        chosen = set()
        for seed in range(400):
            sampler = Sampler(weights, Sampling(1, 1.0, seed=seed, **settings))
            chosen.add(sampler.choose(context.handle, -1, row, int(row.argmax())))
            sampler.close()
        return row.astype(np.float64), chosen

    row, chosen = with_weights(model, run)
    order = np.argsort(-row)
    p = np.exp(row[order] - row.max())
    p /= p.sum()
    allowed = set(order[kept(p)].tolist())
    assert chosen <= allowed
    assert 1 < len(allowed) < len(row)


SCHEMAS: list[Any] = [
    {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "boolean"}}, "required": ["a"]},
    {"type": "object", "properties": {"o": {"type": "null"}, "p": {"type": "null"}, "q": {"type": "null"}}},
    {"type": "object", "required": ["k"], "additionalProperties": {"type": "integer", "maximum": 5}},
    {"type": "object", "additionalProperties": {"type": "boolean"}},
    {"enum": ["a", 'quo"te', "back\\slash", "ünïcode", "line\nbreak", 1, None, {"x": [1.5]}]},
    {"const": {"a": "\u2028"}},
    {"type": "array", "items": {"type": "integer", "minimum": -12, "maximum": 7}, "maxItems": 4},
    {"type": "array", "items": {"type": "null"}, "minItems": 2, "maxItems": 2},
    {"type": "array", "items": {"type": "null"}, "minItems": 1},
    {"type": "array", "prefixItems": [{"type": "null"}, {"type": "boolean"}], "items": False},
    {"type": "array", "prefixItems": [{"type": "null"}], "items": {"type": "boolean"}, "minItems": 3},
    {"type": "string", "minLength": 2, "maxLength": 5},
    {"type": "string", "maxLength": 0},
    {"type": ["string", "null"], "maxLength": 3},
    {"type": "string", "format": "date"},
    {"type": "string", "format": "date-time"},
    {"type": "string", "format": "uuid"},
    {"type": "number", "minimum": 0, "maximum": 1},
    {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 10},
    {"type": "number", "minimum": -3, "exclusiveMaximum": -1},
    {"type": "number", "exclusiveMinimum": -2, "maximum": 12},
    {"type": "number", "minimum": 0, "maximum": 0},
    {"type": "number", "maximum": 0},
    {"type": "number"},
    {"type": "integer", "exclusiveMinimum": 3},
    {"anyOf": [{"type": "integer"}, {"type": "array", "items": {"type": "null"}}]},
    {
        "oneOf": [{"$ref": "#/$defs/cat"}, {"$ref": "#/$defs/dog"}],
        "$defs": {
            "cat": {"type": "object", "properties": {"kind": {"const": "cat"}}, "required": ["kind"]},
            "dog": {"type": "object", "properties": {"kind": {"enum": ["dog"]}}, "required": ["kind"]},
        },
    },
    {
        "$ref": "#/$defs/tree",
        "$defs": {
            "tree": {
                "type": "object",
                "properties": {
                    "value": {"type": "integer", "minimum": 0, "maximum": 9},
                    "children": {"type": "array", "items": {"$ref": "#/$defs/tree"}, "maxItems": 2},
                },
                "required": ["value"],
            }
        },
    },
    {"allOf": [{"type": "boolean"}], "description": "one"},
    {"$defs": {"a/b": {"type": "null"}}, "$ref": "#/$defs/a~1b"},
    {},
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: json.dumps(schema)[:50])
def test_every_text_of_a_schemas_grammar_satisfies_the_schema(model: Path, schema: Any) -> None:
    grammar = schema_grammar(schema)
    validator = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())

    def run(weights: Weights) -> list[GeneratedText]:
        return [
            write(weights, Sampling(600, temperature, seed=seed, grammar=grammar))
            for temperature in (0.0, 0.7, 3.0)
            for seed in range(1 if not temperature else 6)
        ]

    complete = 0
    for text in with_weights(model, run):
        if text.finish == "stop":
            complete += 1
            validator.validate(json.loads(text.text))
    assert complete or schema == {}


def test_a_grammar_cannot_make_control_tokens_or_broken_characters(tmp_path: Path) -> None:
    # The control token <|im_start|> has the spelling that the grammar asks for; only its characters may come.
    path = make_gguf(tmp_path / "m.gguf", seed=1)
    text = with_weights(path, lambda w: write(w, Sampling(64, grammar='root ::= "<|im_start|>" [é日]{3}')))
    assert text.text[:12] == "<|im_start|>"
    assert len(text.tokens) > 12
    assert set(text.text[12:]) <= set("é日")
    assert len(text.text) == 15


def test_bytes_that_llama_cpp_reads_as_a_nul_do_not_kill_the_process(tmp_path: Path) -> None:
    # E0 may begin a character of [ࠀ-\u0fff]; then the piece 80 80 completes the overlong spelling of NUL,
    # which llama.cpp allows and then throws at.
    path = make_gguf(tmp_path / "m.gguf", says=[b"\xe0", b"\x80\x80", b"x"])

    def run(weights: Weights) -> list[bool]:
        grammar = Grammar(weights, r'root ::= [\u0800-\u0FFF] "x"')
        pieces = {weights.piece(token): token for token in range(weights.n_vocab)}
        seen = [grammar.allows(pieces[b"\xe0"])]
        grammar.accept(pieces[b"\xe0"])
        seen += [grammar.allows(pieces[piece]) for piece in (b"\x80\x80", b"x", b"\xa0")]
        grammar.close()
        return seen

    assert with_weights(path, run) == [True, False, False, True]


def test_a_grammar_that_no_token_fits_is_an_error(tmp_path: Path) -> None:
    path = make_gguf(tmp_path / "m.gguf")

    def run(weights: Weights) -> None:
        mask = Sampler(weights, Sampling(8, 1.0, grammar='root ::= "a" "b"'))
        row = np.full(weights.n_vocab, -1e30, np.float32)
        candidates = np.zeros(weights.n_vocab, CANDIDATE)
        candidates["id"], candidates["logit"] = np.arange(weights.n_vocab), row
        grammar = Grammar(weights, 'root ::= "a" "b"')
        grammar.mask(candidates)
        assert np.isfinite(candidates["logit"]).sum() == 1
        mask.close()
        grammar.close()

    with_weights(path, run)
    narrow = make_gguf(tmp_path / "n.gguf", ends=False, says=[b"on", b"an"])
    for temperature in (0.0, 1.0):
        sampling = Sampling(8, temperature, grammar='root ::= "\\U0001F600"')
        text = with_weights(narrow, lambda w, s=sampling: write(w, s))
        assert text.text == "\U0001f600"  # four byte tokens: a byte-level vocabulary can spell everything


def test_a_grammar_that_can_be_read_in_ever_more_ways_is_stopped(tmp_path: Path) -> None:
    path = make_gguf(tmp_path / "m.gguf", says=[b"a"], ends=False)
    grammar = 'root ::= x\nx ::= "a" x "b" | "a" x "c" | "d"'

    def run(weights: Weights) -> None:
        state = Grammar(weights, grammar)
        token = int(weights.tokenize("a", 8)[0])
        try:
            for _ in range(60):
                state.accept(token)
        finally:
            state.close()

    with pytest.raises(ModelError, match="the grammar can be read in too many ways at once"):
        with_weights(path, run)


@pytest.mark.parametrize("grammar", ["root ::= ", "root ::= a", "x ::= [a]", 'root ::= root "a"', "\0", "("])
def test_a_bad_grammar_is_a_failed_call(model: Path, grammar: str) -> None:
    message = "grammar|answered nothing"
    with pytest.raises(ModelError, match=message):
        with_weights(model, lambda weights: write(weights, Sampling(4, grammar=grammar)))


def test_llama_cpps_records_have_the_layout_that_is_assumed() -> None:
    records = np.zeros(3, CANDIDATE)
    records["id"], records["logit"], records["p"] = [7, 8, 9], [0.5, 1.5, 2.5], [0.1, 0.2, 0.3]
    array = token_array(records)
    assert ctypes.sizeof(api.llama_token_data) == CANDIDATE.itemsize
    seen: Sequence[Any] = [(array.data[i].id, array.data[i].logit) for i in range(array.size)]
    assert seen == [(7, 0.5), (8, 1.5), (9, 2.5)]


def test_a_stop_string_across_tokens_ends_the_text_and_is_not_shown(tmp_path: Path) -> None:
    path = make_gguf(tmp_path / "m.gguf", says=[b"one", b" tw", b"o\n", b"\nthr", b"ee"])
    emitted: list[str] = []
    text = with_weights(path, lambda w: write(w, Sampling(32, stop=("\n\nt", "zzz")), emitted.append))
    assert text.text == "".join(emitted) == "".join(token.text for token in text.tokens) == "one two"
    assert (text.finish, len(text.tokens)) == ("stop", 4)
    whole = with_weights(path, lambda w: write(w, Sampling(32, stop=("eee",)), None))
    assert whole.text == "one two\n\nthree"  # what was held back is shown when it begins nothing


def test_an_answer_that_begins_with_a_stop_string_has_failed(tmp_path: Path) -> None:
    path = make_gguf(tmp_path / "m.gguf", says=[b"one", b" two"])
    with pytest.raises(ModelError, match=r"answered nothing: .* or a stop string begins it"):
        with_weights(path, lambda w: write(w, Sampling(8, stop=("on",))))
