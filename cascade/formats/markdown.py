"""Answers in Markdown: the fence that models put around a whole answer of code or JSON."""

from __future__ import annotations

import re
from typing import Final

_FENCED: Final = re.compile(
    r"\s*(?P<fence>`{3,}|~{3,})[ \t]*[\w.+#-]*[ \t]*(?:\n|(?=[{\[\"]))(?P<inner>.*?)\s*(?:(?P=fence)\s*)?\Z",
    re.DOTALL,
)


def unfenced(text: str) -> str:
    """Return what stands in the Markdown fence around the whole of `text`; without one, `text` as it is.

    The fence may name a language, and a closing one may be missing (a stop string, say, that ended the text).
    A text with words around its fence, or with several fences, stays as it is.
    """
    found = _FENCED.match(text)
    if found is None or re.search(rf"(?m)^[ \t]*{found['fence']}", found["inner"]):
        return text
    return found["inner"]
