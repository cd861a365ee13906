"""Text or a conversation → prompt tokens: as plain text, or through the file's Jinja chat template."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cascade.engine.template import MARKS, ChatTemplate, TemplateInput
from cascade.engine.weights import MAX_BYTES_PER_TOKEN, Weights
from cascade.errors import ModelError
from cascade.records import Message, Tool

IntArray = npt.NDArray[np.int32]


class Renderer:
    """Renders prompts for one loaded file.

    Text from outside never becomes control tokens: `<|im_end|>` in a message, in a tool's result or in the
    arguments of a call stays characters.

    Attributes:
        chat: whether the file has a chat template.
    """

    def __init__(self, weights: Weights) -> None:
        """Compile the chat template.

        Raises:
            ModelError: the template is not valid Jinja.
        """
        self._weights = weights
        self._begin = weights.special_token("bos")[1]
        source = weights.chat_template()
        self._template = (
            None if source is None else ChatTemplate(source, self._begin, weights.special_token("eos")[1])
        )
        self.chat = source is not None

    def render_message(self, system: str | None, user: str, limit: int) -> IntArray:
        """Return the prompt for one user message, shape (tokens,).

        Raises:
            ModelError: the prompt cannot be rendered, or certainly has more than `limit` tokens.
        """
        first = (Message(role="system", content=system),) if system else ()
        return self.render_conversation((*first, Message(role="user", content=user)), (), limit)

    def render_conversation(self, messages: Sequence[Message], tools: Sequence[Tool], limit: int) -> IntArray:
        """Return the prompt for a whole conversation, ready for the assistant's next message.

        Args:
            messages: the conversation, oldest first.
            tools: tools that the model may call; the template must show them.
            limit: tokens that the caller can use; much longer prompts are refused without tokenizing them.

        Returns:
            The tokens, shape (tokens,).

        Raises:
            ModelError: the file has no chat template and this is more than one user message; the template
                fails, or leaves out tools or messages; or the prompt certainly has more than `limit` tokens.
        """
        if self._template is None:
            return self._weights.tokenize(_only_text(messages, tools), limit, begin=True)
        _check_size(messages, limit)
        template = self._template
        plain, marked = (TemplateInput(template.features, marked=each) for each in (False, True))
        rendered = template.render_input(plain, messages, tools)
        begin = not (self._begin and rendered.startswith(self._begin))
        tokens = self._weights.tokenize(rendered, limit, begin=begin, special=True)
        skeleton = template.render_input(marked, messages, tools)
        marked.check_shown(skeleton)
        template_tokens = self._weights.tokenize(MARKS.sub(" ", skeleton), limit, begin=begin, special=True)
        control_tokens = self._control_tokens(template_tokens)
        if self._control_tokens(tokens) == control_tokens:
            return tokens
        parts = MARKS.split(skeleton)
        tokens = self._tokenize_parts(parts, marked.texts, limit, begin)
        text_lost = len(set(parts[1::2])) < len(marked.texts)
        if text_lost or self._control_tokens(tokens) != control_tokens:
            raise ModelError("text holds a control token and its chat template cannot be split; remove it")
        return tokens

    def _control_tokens(self, tokens: IntArray) -> list[int]:
        return [token for token in tokens.tolist() if self._weights.is_control(token)]

    def _tokenize_parts(
        self, parts: Sequence[str], texts: Sequence[str], limit: int, begin: bool
    ) -> IntArray:
        """Tokenize the template's text and the texts from outside apart; the latter get no control tokens.

        Args:
            parts: text of the template and index into `texts`, alternating; starts and ends with the
                template.
            texts: the texts from outside.
            limit: as in `render_conversation`.
            begin: whether to add the begin-of-text token.
        """
        tokens = [self._weights.tokenize(parts[0], limit, begin=begin, special=True)]
        for number, after in zip(parts[1::2], parts[2::2], strict=True):
            tokens.append(self._weights.tokenize(texts[int(number)], limit))
            tokens.append(self._weights.tokenize(after, limit, special=True))
        return np.concatenate(tokens)


def _only_text(messages: Sequence[Message], tools: Sequence[Tool]) -> str:
    if len(messages) == 1 and messages[0].role == "user" and not tools:
        return messages[0].content
    if len(messages) == 2 and messages[0].role == "system":
        raise ModelError("it has no chat template for a system message; put that text into 'prompt'")
    raise ModelError(
        f"it has no chat template for {len(messages)} messages and {len(tools)} tools; "
        "ask with one user message, or use a chat model"
    )


def _check_size(messages: Sequence[Message], limit: int) -> None:
    """Raise ModelError for text that certainly does not fit or is not valid Unicode."""
    try:
        size = sum(
            len(text.encode())
            for message in messages
            for text in (message.content, *(call.arguments for call in message.tool_calls))
        )
    except UnicodeEncodeError as error:
        raise ModelError(
            f"text is not valid Unicode at position {error.start}; decode it as UTF-8"
        ) from error
    if size > limit * MAX_BYTES_PER_TOKEN:
        raise ModelError(
            f"conversation has {size} bytes; {limit} tokens hold at most {limit * MAX_BYTES_PER_TOKEN}; "
            "shorten it or send it to a larger model"
        )
