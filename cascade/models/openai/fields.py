"""The fields of a request that an endpoint can do without, and what it says where it refuses one."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, Final, Literal, NamedTuple

from cascade.models.openai.words import words

Optional = Literal["seed", "temperature", "stream_options", "top_logprobs"]
"""Fields that may be left out by `omit`."""
# Left out without being told to: no answer depends on them, and a default temperature is nobody's wish.
LEARNED: Final = frozenset({"seed", "stream_options"})
REFUSALS: Final = (400, 422)  # statuses with which servers refuse a field
_CAPS: Final = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
_LOOKED_AT = 20_000  # characters of a server's answer


class Fields(NamedTuple):
    """What is different in the requests to one endpoint.

    Attributes:
        left_out: fields that are not sent.
        cap: the name of the field that caps the generated tokens.
    """

    left_out: frozenset[str]
    cap: str

    def after(self, said: Any, sent: Mapping[str, Any], optional: Collection[str]) -> Fields | None:
        """Return what to change because of a refusal; None if it names nothing that can be changed.

        Args:
            said: the body of the server's answer, whatever its shape.
            sent: the fields of the refused request.
            optional: those that may be left out.
        """
        text = named(said)
        refused = {name for name in optional if name in sent and re.search(rf"\b{name}\b", text)}
        other = _CAPS[self.cap]
        # Only a server that names the other field surely has it: an unknown one would leave no cap at all.
        swapped = all(re.search(rf"\b{name}\b", text) for name in (self.cap, other))
        if swapped:
            return Fields(self.left_out | refused, other)
        return Fields(self.left_out | refused, self.cap) if refused else None


def named(said: Any) -> str:
    """Return the message of a refusal: where the server names a field, in words or as a member."""
    return words(said)[:_LOOKED_AT]
