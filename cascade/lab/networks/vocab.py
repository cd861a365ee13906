"""Byte-level BPE vocabulary, split like llama.cpp's `gpt-2` pre-tokenizer, and a control token per label."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

ASK = "<ask>"


@dataclass(frozen=True)
class Vocabulary:
    """`tokens[:plain]` are text pieces; the asking token and every task's labels follow."""

    tokens: list[str]
    merges: list[str]
    plain: int
    tasks: dict[str, list[str]]

    @property
    def ask(self) -> int:
        """The token that asks for a label and ends every prompt."""
        return self.plain

    def label_ids(self, task: str) -> list[int]:
        """Return the tokens of a task's labels."""
        start = self.plain + 1
        for name, labels in self.tasks.items():
            if name == task:
                return list(range(start, start + len(labels)))
            start += len(labels)
        raise ValueError(f"unknown task {task!r}; known: {', '.join(self.tasks)}")

    @cached_property
    def tokenizer(self) -> Any:
        """The same tokenizer in the `tokenizers` package."""
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers

        pairs = [tuple(merge.split(" ")) for merge in self.merges]
        vocab = {token: i for i, token in enumerate(self.tokens[: self.plain])}
        tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=pairs))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        return tokenizer

    @property
    def pieces(self) -> list[str]:
        """The text of each piece; a dot where it is none by itself."""
        texts: list[str] = self.tokenizer.decode_batch([[token] for token in range(self.plain)])
        return [text.strip() or "." for text in texts]

    def encode(self, texts: Iterable[str], limit: int) -> list[list[int]]:
        """Return prompts: at most `limit` tokens of the text, then the asking token."""
        cleaned = [" " + text.strip().lower() for text in texts]
        return [[*item.ids[:limit], self.ask] for item in self.tokenizer.encode_batch(cleaned)]


def learn(words: Mapping[str, int], size: int, tasks: dict[str, list[str]]) -> Vocabulary:
    """Learn `size` text pieces from weighted texts and add the label tokens of `tasks`."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    texts = (" " + word.lower() for word, count in sorted(words.items()) for _ in range(count))
    tokenizer.train_from_iterator(texts, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    # No piece of text has a space in it (they are written as "Ġ"), so no piece equals a label's token.
    labels = [f"<{task} {number}>" for task, names in tasks.items() for number in range(len(names))]
    return Vocabulary([*tokens, ASK, *labels], merges, len(tokens), tasks)
