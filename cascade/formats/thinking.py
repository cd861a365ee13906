"""Thinking apart from the answer: the reasoning that models write into their texts.

Models mark it in many ways, and a server passes it on as text unless it is told to parse it:

- `<think>…</think>`, also `<thinking>`, `<thought>`, `<reason>`, `<reasoning>`, and with a prefix
  (`<seed:think>`, `<longcat_think>`)
- `[THINK]…[/THINK]` (Mistral), `◁think▷…◁/think▷` (Kimi), `<|START_THINKING|>…<|END_THINKING|>` (Cohere),
  `<|begin_of_thought|>…<|end_of_thought|>`, `<unused94>…<unused95>` and `<|channel>…<channel|>` (Gemma)
- the channels of gpt-oss: `<|channel|>analysis<|message|>…<|end|>`, then the channel `final`

A block counts where it begins the text or a line, and not within a Markdown fence, so that an answer may
speak of such tags. A block that is never closed lasts to the end. What stands before a closing tag without an
opening one is thinking too: the chat template had opened it. A text that begins like JSON is not searched for
such a tag.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Final, NamedTuple

_NAME = r"(?i:(?:[a-z]+[:_])?(?:think|thinking|thoughts?|reason|reasoning))"
_OPEN = (
    rf"<{_NAME}(?:\s[^<>/]{{0,60}})?>|\[(?:THINK|THINKING|REASONING)\]|◁think▷"
    r"|<\|(?:START_THINKING|begin_of_thought|think|thinking)\|>|<unused94>(?:thought)?|<\|channel>(?:thought)?"
)
_CLOSE = (
    rf"</{_NAME}\s{{0,60}}>|\[/(?:THINK|THINKING|REASONING)\]|◁/think▷"
    r"|<\|(?:END_THINKING|end_of_thought|/think|/thinking)\|>|<unused95>|<channel\|>"
)
_CHANNEL = (
    r"(?:<\|start\|>assistant\s?)?<\|channel\|>\s?(?P<name>\w{1,20})(?P<to>[^<]{0,100})"
    r"(?:<\|constrain\|>[^<]{0,40})?<\|message\|>"
)
_WRAP = r"<(?i:answer|response|final_answer)>|<\|(?:begin_of_solution|START_RESPONSE|START_TEXT)\|>"
_UNWRAP = (
    r"</(?i:answer|response|final_answer)>"
    r"|<\|(?:end_of_solution|END_RESPONSE|END_TEXT|return|end)\|>"
)
_MARK: Final = re.compile(
    rf"(?P<channel>{_CHANNEL})|(?P<open>{_OPEN})|(?P<close>{_CLOSE})|(?P<wrap>{_WRAP})|(?P<unwrap>{_UNWRAP})"
)
# The end of a text that may be the beginning of a mark, or of a longer one.
_UNFINISHED: Final = re.compile(
    r"(?:<\|(?:start|channel)\|>(?:(?!<\|message\|>|<\|end\|>).){0,200}"
    r"|<(?:unused94>|\|channel>)\w{0,7}|[<\[◁][^<>\[\]◁▷\n]{0,80})\Z",
    re.DOTALL,
)
_OPENED: Final = re.compile(rf"(?:{_OPEN}|<\|channel\|>analysis<\|message\|>)\s*\Z")
_MARKERS: Final = re.compile(rf"<\|(?:channel|message|start|constrain)\|>|{_OPEN}|{_CLOSE}|{_WRAP}|{_UNWRAP}")
_AROUND: Final = re.compile(
    r"[<>\[\]|/◁▷\s]|(?:begin|end)_of_|(?:start|end)_|(?<=unused9)[45]|(?<=unused94>)thought|(?<=channel>)thought"
)
_SYNONYMS: Final = re.compile(r"(?:think|thought|reason)\w*")
_SYNONYM = 5  # letters that tell them apart
_LINE = 80  # characters of a line that are looked at
_TEMPLATE, _CHANNELS = "template", "channels"  # what opened a block, if no tag did


class Split(NamedTuple):
    """A text taken apart.

    Attributes:
        text: the answer.
        thinking: what was split off, without its tags; None if there was none.
        spans: (start, end) of the pieces of the whole text that the answer is made of, in order.
    """

    text: str
    thinking: str | None
    spans: tuple[tuple[int, int], ...]


def split(text: str, *, opened: bool = False, cut: bool = False) -> Split:
    """Split a whole text.

    Args:
        text: what the model wrote.
        opened: whether the prompt ended within thinking.
        cut: whether the text was cut off.
    """
    splitter = Splitter(opened=opened)
    splitter.push(text)
    splitter.close(cut=cut)
    return splitter.result()


def opens_thinking(prompt_end: str) -> bool:
    """Return whether a prompt that ends so has opened the thinking, so that the answer begins within it."""
    return _OPENED.search(prompt_end) is not None


def is_marker(text: str) -> bool:
    """Return whether a control token that reads `text` begins or ends thinking, or the answer after it."""
    return _MARKERS.fullmatch(text) is not None


class Splitter:
    """Splits a text that comes in pieces; how it is cut into pieces makes no difference to the result.

    Attributes:
        inside: whether the text is within thinking now.
        thought: whether there was any thinking.
        unopened: whether thinking was ended by a closing tag that no opening tag stood before.
        leaked: whether some of that had been handed out as answer.
    """

    def __init__(self, *, opened: bool = False) -> None:
        """Begin a text; `opened` says that the prompt ended within thinking.

        Such a text that leaves the thinking never is all answer, unless it was cut off.
        """
        self.inside, self.thought = opened, False
        self.unopened = self.leaked = False
        self._opened_by = _TEMPLATE if opened else ""
        self._unread = ""
        self._at = 0  # where it starts
        self._answer: list[tuple[int, str]] = []  # (start, text)
        self._thinking: list[tuple[int, str]] = []
        self._held: list[tuple[int, str]] = []  # white space and closing marks, not yet known to be answer
        self._shown = 0  # pieces of the answer that were handed out
        self._wrapped = False
        self._fresh = True  # no answer yet, or none since the last thinking
        self._lines = _Lines()
        self._inline: Counter[str] = Counter()  # opening tags within a line, as text

    @property
    def plain(self) -> bool:
        """Whether the answer has begun, and all of the text belongs to it so far."""
        return not (self.inside or self.thought or self._fresh)

    def push(self, piece: str) -> str:
        """Take the next piece; return what is answer for certain by now, and was not returned before."""
        self._unread += piece
        self._read(final=False)
        return self._new()

    def close(self, *, cut: bool = False) -> str:
        """End the text, and return the rest of the answer; `cut` says that the text was cut off."""
        self._read(final=True)
        if self.inside and self._opened_by == _TEMPLATE and not cut:
            self._answer, self._thinking = self._thinking, []
        elif self.inside:
            self.thought = True
        elif not (self.thought or self._wrapped):  # the text is blank
            self._answer += self._held
        return self._new()

    def result(self) -> Split:
        """Return the text taken apart; for after `close`."""
        spans: list[tuple[int, int]] = []
        for start, text in self._answer:
            if spans and spans[-1][1] == start:
                spans[-1] = (spans[-1][0], start + len(text))
            else:
                spans.append((start, start + len(text)))
        thinking = "".join(text for _, text in self._thinking).strip()
        return Split("".join(text for _, text in self._answer), thinking or None, tuple(spans))

    def _new(self) -> str:
        new, self._shown = self._answer[self._shown :], len(self._answer)
        return "".join(text for _, text in new)

    def _read(self, *, final: bool) -> None:
        for mark, text in self._lexemes(final=final):
            if mark is None:
                self._text(text)
            elif self.inside:
                self._mark_in_thinking(mark, text)
            else:
                self._mark_in_answer(mark, text)
            self._at += len(text)

    def _lexemes(self, *, final: bool) -> Iterator[tuple[str | None, str]]:
        """Yield the marks and the text between them, as far as they can be told apart by now."""
        unread, start = self._unread, 0
        held = None if final else _UNFINISHED.search(unread)
        end = held.start() if held else len(unread)
        for mark in _MARK.finditer(unread):
            if mark.start() >= end:
                break
            if mark.start() > start:
                yield None, unread[start : mark.start()]
            yield mark.lastgroup, mark.group()
            start = mark.end()
        if end > start:
            yield None, unread[start:end]
        self._unread = unread[max(start, end) :]

    def _text(self, text: str) -> None:
        if self.inside:
            self._thinking.append((self._at, text))
            return
        if text.isspace() and (self._fresh or self._held):
            self._held.append((self._at, text))
            return
        start = self._at
        if self._fresh and (self.thought or self._wrapped):  # white space between the thinking and the answer
            bare = text.lstrip()
            start += len(text) - len(bare)
            text, self._held = bare, []
        for piece in (*self._held, (start, text)):
            self._answer.append(piece)
            self._lines.add(piece[1])
        self._held, self._fresh = [], False

    def _mark_in_thinking(self, kind: str, text: str) -> None:
        by = self._opened_by
        if kind == "channel" and by in (_CHANNELS, _TEMPLATE):
            self._leave()
            self._mark_in_answer(kind, text)
        elif self._ends(kind, text):
            self.unopened = self.unopened or self._opened_by == _TEMPLATE
            self._leave()
        elif kind == "open" and by == _TEMPLATE and all(piece.isspace() for _, piece in self._thinking):
            self._opened_by = _name(text)  # the model opened it once more
        else:
            self._thinking.append((self._at, text))

    def _ends(self, kind: str, text: str) -> bool:
        """Return whether a mark ends the thinking."""
        if text == "<|end|>":
            return self._opened_by in (_CHANNELS, _TEMPLATE)
        return kind == "close" and self._opened_by in (_name(text), _TEMPLATE)

    def _mark_in_answer(self, kind: str, text: str) -> None:
        begins = self._fresh or bool(self._held) or self._lines.begins
        if kind == "channel" and begins:
            self._channel(text)
        elif kind == "open" and begins and not self._lines.fenced:
            self._enter(_name(text))
        elif kind == "wrap" and self._fresh and self.thought:
            self._wrapped = True
        elif kind == "unwrap" and self._wrapped:
            self._held.append((self._at, text))
        elif kind == "close" and self._closes_all(_name(text)):
            self.unopened, self.leaked = True, self.leaked or self._shown > 0
            self._thinking += self._answer
            self._answer, self._shown = [], 0
            self._enter(_TEMPLATE)
            self._leave()
        else:
            self._inline[_name(text)] += kind == "open"
            self._text(text)

    def _channel(self, text: str) -> None:
        header = _MARK.match(text)
        name, to = (header["name"], header["to"]) if header else ("", "")
        if name == "final":
            self._wrapped, self._held = True, []
        elif "to=" in to:  # a call of a tool
            self._text(text)
        else:
            self._enter(_CHANNELS)

    def _closes_all(self, name: str) -> bool:
        """Return whether a closing tag ends thinking that the template had opened; else it is text."""
        if self._inline[name] > 0:  # its opening tag is text, too
            self._inline[name] -= 1
            return False
        return not (self._lines.fenced or self._lines.quoted or self._lines.json)

    def _enter(self, by: str) -> None:
        self.inside, self._opened_by, self._held = True, by, []

    def _leave(self) -> None:
        self.inside, self.thought, self._fresh = False, True, True
        self._lines.end()
        self._inline.clear()


class _Lines:
    """What the answer so far says about its next character.

    Attributes:
        fenced: it stands within a Markdown fence.
        json: the text began like JSON.
    """

    def __init__(self) -> None:
        self.fenced = self.json = False
        self._begun, self._line, self._ticks = False, "", 0

    @property
    def begins(self) -> bool:
        """Whether only white space stands before it on its line."""
        return not self._line.strip()

    @property
    def quoted(self) -> bool:
        """Whether it stands within a code span of its line."""
        return self._ticks % 2 == 1

    def add(self, text: str) -> None:
        """Add what the answer goes on with."""
        if not self._begun and (bare := text.lstrip()):
            self._begun, self.json = True, bare[0] in "{["
        for number, part in enumerate(text.split("\n")):
            if number:
                self._end_line()
            self._line = (self._line + part)[:_LINE]
            self._ticks += part.count("`")

    def end(self) -> None:
        """Begin anew after thinking."""
        self._end_line()
        self.fenced = self.json = self._begun = False

    def _end_line(self) -> None:
        self.fenced ^= self._line.lstrip().startswith(("```", "~~~"))
        self._line, self._ticks = "", 0


def _name(tag: str) -> str:
    """Return what an opening and a closing tag have in common."""
    bare = _AROUND.sub("", tag.casefold().partition(" ")[0])
    return _SYNONYMS.sub(lambda found: found[0][:_SYNONYM], bare)
