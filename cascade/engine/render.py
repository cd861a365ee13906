"""Text → prompt tokens: plainly, or through the file's own chat template."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cascade.engine.weights import Weights
from cascade.errors import ModelError

IntArray = npt.NDArray[np.int32]

# What a chat template may add to the messages, in bytes. It bounds the price of a call ahead of it.
TEMPLATE_BYTES = 4096
_MARK = "\u2063cascade-user-text\u2063"


class Renderer:
    """Makes prompts for one loaded file.

    A user's text never turns into control tokens: `<|im_end|>` in it stays eleven characters.

    Attributes:
        chat: whether the file has a chat template.
    """

    def __init__(self, weights: Weights) -> None:
        """Compile the chat template.

        Raises:
            ModelError: the template is not valid Jinja.
        """
        self._weights = weights
        template = weights.chat_template()
        self.chat = template is not None
        self._begin = weights.special("bos")[1]
        if template is not None:
            from jinja2 import TemplateError
            from llama_cpp.llama_chat_format import Jinja2ChatFormatter

            try:  # the formatter runs templates in Jinja's immutable sandbox
                self._formatter = Jinja2ChatFormatter(
                    template, bos_token=self._begin, eos_token=weights.special("eos")[1]
                )
            except TemplateError as error:
                raise ModelError(f"its chat template is broken: {error}; download the file again") from error

    def tokens(self, system: str | None, user: str, limit: int) -> IntArray:
        """Return the prompt for one user message, shape (tokens,).

        Raises:
            ModelError: the prompt cannot be made, or surely has more than `limit` tokens.
        """
        if not self.chat:
            if system:
                raise ModelError("it has no chat template for a system message; put that text into 'prompt'")
            return self._weights.tokenize(user, limit, begin=True)
        rendered = self._render(system, user)
        added = len(rendered.encode()) - len(user.encode()) - len((system or "").encode())
        if added > TEMPLATE_BYTES:
            raise ModelError(f"its chat template adds {added} bytes; at most {TEMPLATE_BYTES} are expected")
        begin = not (self._begin and rendered.startswith(self._begin))
        if self._has_control(user, limit):
            return self._guarded(system, user, limit, begin)
        return self._weights.tokenize(rendered, limit, begin=begin, special=True)

    def _render(self, system: str | None, user: str) -> str:
        messages = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": user})
        try:
            return str(self._formatter(messages=messages).prompt)
        except Exception as error:  # a template is foreign code; its failure is a failed call
            raise ModelError(f"its chat template refuses the messages: {error}; check 'system'") from error

    def _has_control(self, user: str, limit: int) -> bool:
        plain = self._weights.tokenize(user, limit)
        return not np.array_equal(plain, self._weights.tokenize(user, limit, special=True))

    def _guarded(self, system: str | None, user: str, limit: int, begin: bool) -> IntArray:
        """Tokenize the template's text and the user's apart, so that only the former holds control tokens."""
        before, mark, after = self._render(system, _MARK).partition(_MARK)
        if not mark or _MARK in after:
            raise ModelError("text holds a control token and its chat template cannot be split; remove it")
        return np.concatenate(
            [
                self._weights.tokenize(before, limit, begin=begin, special=True),
                self._weights.tokenize(user, limit),
                self._weights.tokenize(after, limit, special=True),
            ]
        )
