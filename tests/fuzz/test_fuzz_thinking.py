"""Answers that mean harm: any mixture of marks is split the same however it comes, and in bounded time."""

from __future__ import annotations

import random
import signal
from types import FrameType

import pytest
from fuzzing import fuzz

from cascade.confidence.same import normalise
from cascade.formats.markdown import unfenced
from cascade.formats.spelling import spelling, within
from cascade.formats.thinking import Splitter, split
from cascade.records import Token

MARKS = [
    "<think>", "</think>", "<seed:think>", "</seed:think>", "<THINKING a='b'>", "</thinking >", "[THINK]",
    "[/THINK]", "◁think▷", "◁/think▷", "<|START_THINKING|>", "<|END_THINKING|>", "<|START_RESPONSE|>",
    "<|END_RESPONSE|>", "<|channel|>", "analysis", "commentary to=functions.f ", "final", "<|constrain|>json",
    "<|message|>", "<|start|>", "assistant", "<|end|>", "<|return|>", "<|call|>", "<unused94>", "thought",
    "<unused95>", "<|channel>", "<channel|>", "<answer>", "</answer>", "```", "~~~json\n", "`", "{", "[",
    "<", "<|", "\n", "\n\n", " ", "word", "1,000.0", ".", "🙂", "\x00", "\ud800", "²",
]  # fmt: skip
MOST = 180  # seconds that a megabyte may take: a watchdog, tens of times what it takes alone


def an_answer(draw: random.Random) -> list[str]:
    """A text in pieces; each is a mark, or a part of one."""
    pieces = draw.choices(MARKS, k=draw.randrange(1, 30))
    return [part for piece in pieces for part in (piece[:2], piece[2:]) if part or draw.random() < 0.1]


def is_split_the_same(pieces: list[str]) -> None:
    text = "".join(pieces)
    for opened in (False, True):
        for cut in (False, True):
            whole = split(text, opened=opened, cut=cut)
            splitter = Splitter(opened=opened)
            shown = "".join(map(splitter.push, pieces)) + splitter.close(cut=cut)
            assert splitter.result() == whole
            assert splitter.leaked or shown == whole.text
            assert "".join(text[a:b] for a, b in whole.spans) == whole.text
    own = split(text)
    tokens = [Token(text=piece, logprob=-1.0) for piece in pieces]
    assert "".join(token.text for token in within(tokens, own.spans)) == own.text
    assert len(spelling(tokens, own.text)) <= len(tokens)
    assert normalise(normalise(text)) == normalise(text)
    assert unfenced(text) in text


def test_any_mixture_of_marks() -> None:
    fuzz("thinking", draw=an_answer, check=is_split_the_same, examples=1500)


@pytest.mark.slow
@pytest.mark.parametrize("unit", [*MARKS, "x</think>", "\n<think>", "(", ".!", "1,", "a ", "the ", "```\n"])
def test_a_megabyte_of_one_mark_ends(unit: str) -> None:
    text = unit * (1_000_000 // len(unit))

    def late(_signal: int, _frame: FrameType | None) -> None:
        raise AssertionError(f"a megabyte of {unit!r} took more than {MOST} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(MOST)
    try:
        split(text)
        split(f"<think>{text}")
        normalise(text)
        unfenced(text)
        splitter = Splitter()
        for at in range(0, 100_000, 4):
            splitter.push(text[at : at + 4])
        splitter.close()
        tokens = [Token(text=text[at : at + 4], logprob=-1.0) for at in range(0, 100_000, 4)]
        spelling(tokens, text[50_000:100_000])
        spelling(tokens, "zz")
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
