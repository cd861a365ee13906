"""How many tokens a server says that a call used, and what of it can be believed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

# More than any server reads or generates in one call; a larger count is a mistake, unless the prompt is
# itself that large.
_CREDIBLE: Final = 2_000_000


@dataclass(frozen=True, slots=True)
class Counted:
    """Tokens of one call: prompt, generated (hidden reasoning too), and of the prompt what was cached."""

    prompt: int
    generated: int
    cached: int = 0


class Usage:
    """Folds the `usage` of a completion, or of all chunks of a stream: counts only grow, so the largest wins.

    Attributes:
        malformed: a count was no number, negative, or larger than any call.
    """

    def __init__(self) -> None:
        self.malformed = False
        self._counts: dict[str, int] = {}

    def add(self, raw: Any) -> None:
        """Add one `usage`; null and {} say nothing."""
        if raw in (None, "", [], {}):
            return
        if not isinstance(raw, dict):
            self.malformed = True
            return
        for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
            self._add(name, raw.get(name))
        self._detail("cached", raw, ("prompt_tokens_details", "cached_tokens"), ("prompt_cache_hit_tokens",))
        self._detail("reasoning", raw, ("completion_tokens_details", "reasoning_tokens"))

    def counted(self, most_prompt: int = 0) -> Counted | None:
        """Return the counts; None if they are missing or malformed.

        Of `completion_tokens` and `total_tokens - prompt_tokens` the greater counts: some servers leave
        hidden reasoning out of the first. Zeros mean that a server did not count.

        Args:
            most_prompt: upper bound of the prompt's tokens.
        """
        prompt, generated = self._counts.get("prompt_tokens", 0), self._counts.get("completion_tokens", 0)
        total = self._counts.get("total_tokens", 0)
        prompt = prompt or total - generated if generated else prompt
        if prompt:
            generated = max(generated, total - prompt)
        reasoning = self._counts.get("reasoning", 0)
        if not total and reasoning > generated:
            generated += reasoning
        if self.malformed or prompt < 1 or generated < 1:
            return None
        if prompt > max(_CREDIBLE, most_prompt) or generated > _CREDIBLE:
            self.malformed = True
            return None
        return Counted(prompt, generated, min(self._counts.get("cached", 0), prompt))

    def _add(self, name: str, value: Any) -> None:
        if value is None:
            return
        if type(value) is not int or value < 0:
            self.malformed = True
        else:
            self._counts[name] = max(value, self._counts.get(name, 0))

    def _detail(self, name: str, raw: dict[str, Any], *paths: tuple[str, ...]) -> None:
        """Add a count that is optional: a malformed one is as if it was not there."""
        for path in paths:
            value: Any = raw
            for key in path:
                value = value.get(key) if isinstance(value, dict) else None
            if type(value) is int and value >= 0:
                self._counts[name] = max(value, self._counts.get(name, 0))
