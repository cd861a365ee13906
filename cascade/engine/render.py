"""Text or a conversation → prompt tokens: as plain text, or through the file's Jinja chat template."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cascade.engine.outside import tokenize_outside
from cascade.engine.template import ChatTemplate, TemplateInput
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

    def render_conversation(
        self, messages: Sequence[Message], tools: Sequence[Tool], limit: int, text: str | None = None
    ) -> IntArray:
        """Return the prompt for a whole conversation, ready for the assistant's next message.

        Args:
            messages: the conversation, oldest first.
            tools: tools that the model may call; the template must show them.
            limit: tokens that the caller can use; much longer prompts are refused without tokenizing them.
            text: what of the message is from outside, for a file without a chat template; default: all.

        Returns:
            The tokens, shape (tokens,).

        Raises:
            ModelError: the file has no chat template and this is more than one user message; the template
                fails, or leaves out tools or messages; or the prompt certainly has more than `limit` tokens.
        """
        if self._template is None:
            return self._without_template(_only_text(messages, tools), text, limit)
        _check_size(messages, limit)
        template = self._template
        plain, marked = (TemplateInput(template.features, marked=each) for each in (False, True))
        rendered = template.render_input(plain, messages, tools)
        begin = not (self._begin and rendered.startswith(self._begin))
        skeleton = template.render_input(marked, messages, tools)
        marked.check_shown(skeleton)
        pieces = marked.split(skeleton)
        if not self._holds_special(marked.texts, limit):
            tokens = self._weights.tokenize(rendered, limit, begin=begin, special=True)
            if pieces is None or self._special(tokens) == self._special_of(pieces, limit, begin):
                return tokens
        if pieces is None:
            raise ModelError("text holds a control token and its chat template cannot be split; remove it")
        return self._tokenize_pieces(pieces, limit, begin)

    def _without_template(self, content: str, text: str | None, limit: int) -> IntArray:
        """Return the prompt of a file without a chat template; `text` is what in it is from outside.

        The rest is the graph's own prompt, which may hold user-defined tokens.
        """
        before, found, after = content.partition(text or content)
        if not found or not self._holds_special([found], limit):
            return self._weights.tokenize(content, limit, begin=True)
        if not before and not after:
            return tokenize_outside(self._weights, content, limit, begin=True)
        pieces = [(before, False)]
        while found:
            pieces += [(found, True)]
            before, found, after = after.partition(found)
            pieces += [(before, False)]
        return self._tokenize_pieces(pieces, limit, True, special=False)

    def _special(self, tokens: IntArray) -> list[int]:
        return [token for token in tokens.tolist() if self._weights.is_special(token)]

    def _special_of(self, pieces: Sequence[tuple[str, bool]], limit: int, begin: bool) -> list[int]:
        """Return the tokens with a meaning of their own that the template itself writes."""
        own = " ".join(piece for piece, outside in pieces if not outside)
        return self._special(self._weights.tokenize(own, limit, begin=begin, special=True))

    def _holds_special(self, texts: Sequence[str], limit: int) -> bool:
        """Return whether one of `texts` holds what would be read as a token with a meaning of its own."""
        return bool(self._special(self._weights.tokenize("\n".join(texts), 2 * limit, special=True)))

    def _tokenize_pieces(
        self, pieces: Sequence[tuple[str, bool]], limit: int, begin: bool, *, special: bool = True
    ) -> IntArray:
        """Tokenize the template's pieces and those from outside apart; the latter stay characters.

        Args:
            pieces: text, and whether it is from outside; the first is the template's.
            limit: as in `render_conversation`.
            begin: whether to add the begin-of-text token.
            special: whether control tokens in the template's pieces are parsed.
        """
        first, *others = pieces
        tokens = [self._weights.tokenize(first[0], limit, begin=begin, special=special)]
        for text, outside in others:
            if not outside:
                tokens.append(self._weights.tokenize(text, limit, special=special, goes_on=True))
            else:
                tokens.append(tokenize_outside(self._weights, text, limit, goes_on=True))
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
