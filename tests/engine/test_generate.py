"""Generated text: whole characters, real statistics, repeatable seeds, and the right end."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from decoding import drain, with_weights
from gguf_maker import make_gguf
from hypothesis import given
from hypothesis import strategies as st

from cascade.engine.context import ContextShape
from cascade.engine.generate import GeneratedText, GenerateOptions, StopStrings, generate, prefill
from cascade.engine.sampling import Sampling
from cascade.engine.weights import Weights
from cascade.errors import ModelError

PROMPT = np.array([72, 101, 257, 111], np.int32)
GREEDY = Sampling(max_tokens=32)


def write(
    path: Path,
    sampling: Sampling = GREEDY,
    on_text: Callable[[str], None] | None = None,
    prompt: np.ndarray = PROMPT,
) -> GeneratedText:
    def run(weights: Weights) -> GeneratedText:
        return drain(
            generate(
                weights, weights.scheduler(ContextShape(512, 1)), prompt, sampling, GenerateOptions(on_text)
            )
        )

    return with_weights(path, run)


def test_characters_split_across_tokens_are_emitted_whole(tmp_path: Path) -> None:
    text = "né✓ 日本"
    data = text.encode()
    pieces = [data[i : i + 2] for i in range(0, len(data), 2)]
    path = make_gguf(tmp_path / "m.gguf", says=pieces)
    emitted: list[str] = []
    done = write(path, on_text=emitted.append)
    assert done.text == "".join(emitted) == "".join(token.text for token in done.tokens) == text
    assert "\N{REPLACEMENT CHARACTER}" not in done.text
    assert len(done.tokens) == len(pieces)
    assert done.finish == "stop"


def test_a_text_cut_inside_a_character_says_so(tmp_path: Path) -> None:
    path = make_gguf(tmp_path / "m.gguf", says=[b"a\xe6", b"\x97", b"\xa5"])
    emitted: list[str] = []
    done = write(path, Sampling(2), emitted.append)
    assert done.text == "".join(emitted) == "a\N{REPLACEMENT CHARACTER}"
    assert done.finish == "length"


def test_token_statistics_are_those_of_the_model_before_the_sampler(tmp_path: Path) -> None:
    path = make_gguf(tmp_path / "m.gguf", seed=4)

    def first_row(weights: Weights) -> np.ndarray:
        return drain(prefill(weights.context(ContextShape(512, 1)), PROMPT)).astype(np.float64)

    row = with_weights(path, first_row)
    logprob = row - row.max() - np.log(np.exp(row - row.max()).sum())
    for sampling in (GREEDY, Sampling(1, 2.0, seed=3)):
        token = write(path, sampling).tokens[0]
        assert np.isclose(logprob, token.logprob, atol=1e-5).any()
        assert token.entropy == pytest.approx(-(np.exp(logprob) * logprob).sum(), abs=1e-4)
    assert write(path).tokens[0].logprob == pytest.approx(logprob.max(), abs=1e-5)


def test_the_same_seed_repeats_and_another_seed_differs(tmp_path: Path) -> None:
    path = make_gguf(tmp_path / "m.gguf", seed=1)
    first, again, other = (write(path, Sampling(16, 1.0, seed=seed)).tokens for seed in (1, 1, 2))
    assert first == again != other


def test_sampling_follows_the_distribution_at_its_temperature(tmp_path: Path) -> None:
    path = make_gguf(tmp_path / "m.gguf", seed=2)
    temperature, draws = 1.5, 1500

    def run(weights: Weights) -> tuple[np.ndarray, Counter[float]]:
        row = drain(prefill(weights.context(ContextShape(512, 1)), PROMPT)).astype(np.float64)
        scheduler = weights.scheduler(ContextShape(512, 1))
        assert not any(weights.is_end(int(token)) for token in np.argsort(-row)[:3])
        counts: Counter[float] = Counter()
        for seed in range(draws):
            with contextlib.suppress(ModelError):  # the end token was drawn
                text = drain(generate(weights, scheduler, PROMPT, Sampling(1, temperature, seed=seed)))
                counts[text.tokens[0].logprob] += 1
        return row, counts

    row, counts = with_weights(path, run)
    logprob = row - row.max() - np.log(np.exp(row - row.max()).sum())
    scaled = np.exp(logprob / temperature)
    expected = scaled / scaled.sum()
    for token in np.argsort(-expected)[:3]:
        seen = sum(count for value, count in counts.items() if abs(value - logprob[token]) < 1e-5) / draws
        error = np.sqrt(expected[token] * (1 - expected[token]) / draws)
        assert abs(seen - expected[token]) < 5 * error


def test_a_vanishing_temperature_is_greedy(tmp_path: Path) -> None:
    path = make_gguf(tmp_path / "m.gguf")
    assert write(path, Sampling(8, 1e-30)).tokens == write(path, Sampling(8)).tokens


def test_a_model_that_ends_at_once_has_failed(tmp_path: Path) -> None:
    path = make_gguf(tmp_path / "m.gguf", says=[b"x"])
    with pytest.raises(ModelError, match="it answered nothing: its first token ends the text"):
        write(path, prompt=np.array([ord("x")], np.int32))


TEXT = st.text("ab<é", max_size=24)
STOPS = st.lists(st.text("ab<é", min_size=1, max_size=4), max_size=3)


def shown(stops: list[str], pieces: list[str]) -> tuple[list[str], bool]:
    finder, seen = StopStrings(stops), []
    for piece in pieces:
        text, stopped = finder.push(piece)
        seen.append(text)
        if stopped:
            return seen, True
    return [*seen, finder.rest()], False


@given(TEXT, STOPS, st.lists(st.integers(0, 24), max_size=6))
def test_the_end_does_not_depend_on_the_pieces(text: str, stops: list[str], cuts: list[int]) -> None:
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[a:b] for a, b in pairwise(edges)]
    seen, stopped = shown(stops, pieces)
    alone, stopped_alone = shown(stops, list(text))
    assert ("".join(seen), stopped) == ("".join(alone), stopped_alone)
    ends = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    assert "".join(seen) == text[: min(ends)[1] if ends else None]


def test_a_possible_start_of_a_stop_string_is_held_back() -> None:
    finder = StopStrings(["<end>", "é<"])
    assert [finder.push(piece) for piece in ("a<", "e", "nd", "x", "é")] == [
        ("a", False), ("", False), ("", False), ("<endx", False), ("", False),
    ]  # fmt: skip
    assert finder.rest() == "é"


def test_the_longest_of_stop_strings_that_end_together_is_removed() -> None:
    assert shown(["b", "aab"], ["x", "aa", "b", "y"]) == (["x", "", ""], True)
