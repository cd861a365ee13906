"""Thinking is split off an answer, however it is marked, cut into pieces, or tokenized."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cascade.formats.markdown import unfenced
from cascade.formats.spelling import spelling, within
from cascade.formats.thinking import Splitter, is_marker, opens_thinking, split
from cascade.records import Token

NAMES = ("think", "thinking", "thought", "reason", "reasoning", "seed:think", "longcat_think", "THINK")
PAIRS = (
    *((f"<{name}>", f"</{name}>") for name in NAMES),
    ('<think depth="2">', "</think>"),
    ("<thinking>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<unused94>thought\n", "<unused95>"),
    ("<|channel>thought\n", "<channel|>"),
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    (
        "<|start|>assistant<|channel|>analysis<|message|>",
        "<|start|>assistant<|channel|>final <|constrain|>json<|message|>",
    ),
)
WORDS = st.sampled_from(
    [
        "billing",
        "it",
        "is",
        "2 < 3",
        "a > b",
        "[1]",
        "Ünï",
        "🙂",
        "<b>",
        "if x<y:",
        "",
        ".",
        "don't",
        "</p>",
        "`x`",
    ]
)
PROSE = st.lists(WORDS, min_size=1, max_size=8).map(" ".join)
# An answer begins with a visible character, because white space between thinking and answer is no answer.
ANSWERS = PROSE.map(str.strip).filter(bool) | st.sampled_from(
    ['{"a": [1, 2]}', "billing", "Use <think>…</think> or `</think>`.", "```\n<think>\n```", "x\n\n- y\n"]
)
THOUGHTS = st.lists(PROSE | st.just("\n") | st.just("```"), max_size=4).map("".join)
BLANKS = st.sampled_from(["", "\n", "\n\n", " "])


@st.composite
def pieces(draw: st.DrawFn, text: str) -> list[str]:
    """Cut `text` anywhere."""
    cuts = sorted(draw(st.sets(st.integers(1, max(1, len(text) - 1)), max_size=len(text))))
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def streamed(parts: list[str], *, opened: bool = False, cut: bool = False) -> tuple[str, Splitter]:
    splitter = Splitter(opened=opened)
    shown = [splitter.push(part) for part in parts]
    return "".join(shown) + splitter.close(cut=cut), splitter


@settings(max_examples=150)
@given(st.data(), st.sampled_from(PAIRS), THOUGHTS, ANSWERS, BLANKS, BLANKS)
def test_a_block_before_the_answer(
    data: st.DataObject, pair: tuple[str, str], thought: str, answer: str, before: str, after: str
) -> None:
    text = f"{before}{pair[0]}{thought}{pair[1]}{after}{answer}"
    found = split(text)
    assert found.text == answer
    assert found.thinking == (thought.strip() or None)
    assert "".join(text[a:b] for a, b in found.spans) == answer
    shown, splitter = streamed(data.draw(pieces(text)))
    assert shown == answer, "a piece of the thinking got out, or the answer is not whole"
    assert splitter.result() == found
    assert not splitter.leaked


@settings(max_examples=80)
@given(st.data(), st.sampled_from(PAIRS[:-2]), THOUGHTS.filter(lambda text: "```" not in text), ANSWERS)
def test_a_template_that_opened_it(
    data: st.DataObject, pair: tuple[str, str], thought: str, answer: str
) -> None:
    """Only the closing tag is written: known before, nothing gets out; else the end result is the same."""
    text = f"{thought}{pair[1]}\n\n{answer}"
    parts = data.draw(pieces(text))
    shown, known = streamed(parts, opened=True)
    assert shown == answer == known.result().text
    if not thought.lstrip().startswith(("[", "{")):
        guessed = streamed(parts)[1]
        assert guessed.result() == known.result() == split(text)


@given(st.data(), st.sampled_from(PAIRS), PROSE)
def test_a_block_that_was_cut_is_no_answer(data: st.DataObject, pair: tuple[str, str], thought: str) -> None:
    shown, splitter = streamed(data.draw(pieces(pair[0] + thought)), cut=True)
    assert shown == "" == splitter.result().text
    assert splitter.result().thinking == (thought.strip() or None)
    shown, splitter = streamed(data.draw(pieces(thought or "x")), opened=True, cut=True)
    assert shown == ""


@settings(max_examples=100)
@given(st.data(), st.text() | ANSWERS | st.lists(WORDS | st.sampled_from("<[◁`\n"), max_size=12).map("".join))
@example(None, "the tags <think> and </think>")
@example(None, "  \n ")
@example(None, "<thin")
def test_a_text_without_thinking_stays_as_it_is(data: st.DataObject | None, text: str) -> None:
    parts = list(text) if data is None else data.draw(pieces(text))
    shown, splitter = streamed(parts)
    assert shown == text == splitter.result().text
    assert splitter.result().thinking is None


@settings(max_examples=100)
@given(
    st.data(),
    st.lists(st.sampled_from([*sum(PAIRS, ()), "a", "\n", "```", "`", "{", " ", "</answer>"]), max_size=12),
)
def test_any_mixture_of_tags_is_split_the_same_however_it_is_cut(
    data: st.DataObject, parts: list[str]
) -> None:
    text = "".join(parts)
    found = split(text)
    assert "".join(text[a:b] for a, b in found.spans) == found.text
    shown, splitter = streamed(data.draw(pieces(text)) if text else [])
    assert splitter.result() == found
    assert splitter.leaked or shown == found.text


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>a</think><answer>billing</answer>", "billing"),
        ("<think>a</think>\n<think>b</think>\nbilling", "billing"),
        ("First.\n<think>b</think>\n\nSecond.", "First.\nSecond."),
        ("<|START_THINKING|>a<|END_THINKING|><|START_RESPONSE|>b<|END_RESPONSE|>", "b"),
        ("<|channel|>final<|message|>billing<|return|>", "billing"),
        ('{"tag": "x</think>y"}', '{"tag": "x</think>y"}'),
        ("<answer>billing</answer>", "<answer>billing</answer>"),
        ("<think>a</think>b</think>c", "c"),
    ],
)
def test_how_models_write(text: str, answer: str) -> None:
    assert split(text).text == answer


def test_prompts_that_open_the_thinking() -> None:
    assert opens_thinking("<|im_start|>assistant\n<think>\n")
    assert opens_thinking("[/INST][THINK]")
    assert not opens_thinking("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert not opens_thinking("explain <think> to me")


def test_control_tokens_that_mark_thinking() -> None:
    assert all(map(is_marker, ("<think>", "[/THINK]", "<|channel|>", "<|message|>", "<|END_THINKING|>")))
    assert not any(map(is_marker, ("<|im_end|>", "</s>", "[INST]", "think", "")))


def tokens_of(parts: list[str]) -> list[Token]:
    return [Token(text=part, logprob=-float(index)) for index, part in enumerate(parts)]


@settings(max_examples=100)
@given(st.data(), st.sampled_from(PAIRS), PROSE, ANSWERS)
def test_only_the_tokens_of_the_answer_are_kept(
    data: st.DataObject, pair: tuple[str, str], thought: str, answer: str
) -> None:
    """Whether the thinking is in the text, or the server took it out and left its tokens."""
    head = f"{pair[0]}{thought}{pair[1]}\n"
    parts = [*data.draw(pieces(head)), *data.draw(pieces(answer))]
    tokens = tokens_of(parts)
    kept = spelling(tokens, answer)
    assert "".join(token.text for token in kept) == answer
    first = len(parts) - len(kept)
    assert [token.logprob for token in kept] == [float(-index) for index in range(first, len(parts))]
    assert within(tokens, split("".join(parts)).spans) == kept


@settings(max_examples=80)
@given(st.data(), PROSE.filter(str.strip), st.sampled_from(["billing", "Paris.", "It is 7", '{"a": 1}']))
def test_untagged_tokens_in_front_are_aligned_away(data: st.DataObject, hidden: str, answer: str) -> None:
    own = data.draw(pieces(answer))
    kept = spelling(tokens_of([hidden, *own, "<|im_end|>"]), answer)
    assert kept
    assert len(kept) <= len(own) + 1
    assert all(token.logprob <= -1.0 for token in kept), "a token of the hidden text counts"


def test_tokens_that_do_not_spell_the_answer_are_no_evidence() -> None:
    assert spelling(tokens_of(["Maybe", " it", " is", " shipping"]), "billing") == ()
    assert spelling([], "billing") == ()


def test_parts_of_characters_and_stop_strings_do_not_lose_the_tokens() -> None:
    smile = tokens_of(["Hi", r" bytes:\xf0\x9f"[1:], r"\x99\x82", "!"])
    assert spelling(smile, "Hi🙂!") == tuple(smile)
    assert len(spelling(tokens_of(["bill", "ing", "STOP"]), "billing")) == 2


FENCES = st.sampled_from(["```", "````", "~~~"])


@given(
    FENCES,
    st.sampled_from(["", "json", "JSON", "c++"]),
    ANSWERS.filter(lambda text: "``" not in text),
    BLANKS,
)
def test_a_fence_around_the_whole_is_taken_off(fence: str, language: str, inner: str, around: str) -> None:
    inner = inner.rstrip()
    assert unfenced(f"{around}{fence}{language}\n{inner}\n{fence}{around}") == inner
    assert unfenced(f"{fence}{language}\n{inner}") == inner


@given(ANSWERS)
def test_a_text_that_is_not_one_fence_stays(inner: str) -> None:
    for text in (
        inner,
        f"Here:\n```\n{inner}\n```",
        f"```\n{inner}\n```\nDone.",
        f"```\na\n```\n{inner}\n```\nb\n```",
    ):
        assert unfenced(text) == text or text.lstrip().startswith("```\n<think>")
