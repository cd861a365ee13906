"""Stop strings end a text at the same place however it arrives, and are never shown in part."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from cascade.engine.generate import StopStrings

TEXT = st.text("ab<é", max_size=24)
STOPS = st.lists(st.text("ab<é", min_size=1, max_size=4), max_size=3)


def shown(stops: list[str], pieces: list[str]) -> tuple[list[str], bool]:
    watch, seen = StopStrings(stops), []
    for piece in pieces:
        text, stopped = watch.push(piece)
        seen.append(text)
        if stopped:
            return seen, True
    return [*seen, watch.rest()], False


@given(TEXT, STOPS, st.lists(st.integers(0, 24), max_size=6))
def test_the_end_does_not_depend_on_the_pieces(text: str, stops: list[str], cuts: list[int]) -> None:
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[a:b] for a, b in pairwise(edges)]
    seen, stopped = shown(stops, pieces)
    alone, stopped_alone = shown(stops, list(text))
    assert ("".join(seen), stopped) == ("".join(alone), stopped_alone)
    ends = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    assert "".join(seen) == text[: min(ends)[1] if ends else None]


def test_what_could_begin_a_stop_string_is_held_back() -> None:
    watch = StopStrings(["<end>", "é<"])
    assert [watch.push(piece) for piece in ("a<", "e", "nd", "x", "é")] == [
        ("a", False), ("", False), ("", False), ("<endx", False), ("", False),
    ]  # fmt: skip
    assert watch.rest() == "é"


def test_the_longest_of_stop_strings_that_end_together_counts() -> None:
    assert shown(["b", "aab"], ["x", "aa", "b", "y"]) == (["x", "", ""], True)
