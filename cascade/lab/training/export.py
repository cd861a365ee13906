"""Write a student as a GGUF file for llama.cpp, with the `cascade.tasks` contract in its metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cascade.lab.training.vocab import Vocabulary

if TYPE_CHECKING:
    from cascade.lab.training.model import Student

CONTEXT = 512
LEAD = " "


@dataclass(frozen=True, slots=True)
class TaskPrompt:
    """How the engine asks about one task; `docs/experts.md` explains each field."""

    prefix: list[int]
    suffix: list[int]
    max_tokens: int
    lowercase: bool
    lead: str
    causal: bool
    labels: list[str]
    tokens: list[int]


def prompts(vocabulary: Vocabulary, limits: Mapping[str, int], causal: bool) -> dict[str, TaskPrompt]:
    """Return the contract of every task that the vocabulary has labels for."""
    return {
        task: TaskPrompt(
            prefix=[],
            suffix=[vocabulary.ask],
            max_tokens=limits[task],
            lowercase=True,
            lead=LEAD,
            causal=causal,
            labels=labels,
            tokens=vocabulary.label_ids(task),
        )
        for task, labels in vocabulary.tasks.items()
    }


def write(
    student: Student, vocabulary: Vocabulary, tasks: Mapping[str, TaskPrompt], path: Path, kind: str = "F16"
) -> None:
    """Write the GGUF file; `kind` is `F32`, `F16` or `Q8_0`."""
    import gguf

    shape = student.shape
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name(path.stem)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(shape.width // shape.heads)
    writer.add_vocab_size(shape.vocab)
    writer.add_causal_attention(shape.causal)
    writer.add_file_type({"F32": 0, "F16": 1, "Q8_0": 7}[kind])
    writer.add_string("cascade.tasks", json.dumps({task: asdict(prompt) for task, prompt in tasks.items()}))
    _tokenizer(writer, vocabulary)
    for key, values in student.state_dict().items():
        _tensor(writer, key, values.detach().float().numpy(), kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _tokenizer(writer: Any, vocabulary: Vocabulary) -> None:
    import gguf

    control, normal = int(gguf.TokenType.CONTROL), int(gguf.TokenType.NORMAL)
    plain = vocabulary.plain
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types([normal if i < plain else control for i in range(len(vocabulary.tokens))])
    writer.add_token_merges(vocabulary.merges)
    writer.add_bos_token_id(vocabulary.ask)
    writer.add_eos_token_id(vocabulary.ask)
    writer.add_add_bos_token(False)


def _tensor(writer: Any, key: str, values: np.ndarray, kind: str) -> None:
    import gguf

    name = key.replace(".gain", ".weight")
    if values.ndim == 1 or kind == "F32":
        writer.add_tensor(name, np.ascontiguousarray(values, np.float32))
        return
    quant = gguf.GGMLQuantizationType[kind]
    packed = gguf.quants.quantize(np.ascontiguousarray(values, np.float32), quant)
    writer.add_tensor(name, packed, raw_dtype=quant)


def read_tasks(path: Path) -> dict[str, dict[str, Any]]:
    """Return the `cascade.tasks` contract of a file.

    Raises:
        ValueError: the file has none.
    """
    import gguf

    field = gguf.GGUFReader(str(path)).get_field("cascade.tasks")
    if field is None:
        raise ValueError(
            f"{path}: no 'cascade.tasks' in its metadata; write it with cascade.lab.training.export"
        )
    tasks: dict[str, dict[str, Any]] = json.loads(field.contents())
    return tasks


def checked(labels: Sequence[str]) -> list[str]:
    """Return `labels` if all of them can become token texts.

    Raises:
        ValueError: some cannot.
    """
    invalid = [label for label in labels if not label or any(c in label for c in "<>:\n")]
    if invalid:
        raise ValueError(
            f"labels cannot become tokens: {invalid!r}; use letters, digits, '_', '.', '?' and '-'"
        )
    return list(labels)
