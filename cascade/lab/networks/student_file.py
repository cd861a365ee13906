"""Write a student as a GGUF file for llama.cpp, with the `cascade.tasks` contract in its metadata."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cascade.files import replace_file
from cascade.formats.gguf import TASKS_KEY
from cascade.lab.networks.vocab import Vocabulary

if TYPE_CHECKING:
    from cascade.lab.networks.student import Shape, Student

CONTEXT = 512
CARD_KEY = "cascade.card"
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
    student: Student,
    vocabulary: Vocabulary,
    tasks: Mapping[str, TaskPrompt],
    path: Path,
    kind: str = "F16",
    card: Mapping[str, Any] | None = None,
) -> None:
    """Write the GGUF file whole or not at all; `kind` is `F32`, `F16` or `Q8_0`, `card` plain JSON.

    Raises:
        OSError: it cannot be written; a file that was there is as it was.
    """
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / "student.gguf"
        _write(student, vocabulary, tasks, draft, path.stem, kind, card)
        replace_file(path, draft.read_bytes())


def _write(
    student: Student,
    vocabulary: Vocabulary,
    tasks: Mapping[str, TaskPrompt],
    path: Path,
    name: str,
    kind: str,
    card: Mapping[str, Any] | None,
) -> None:
    import gguf

    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name(name)
    _shape(writer, student.shape)
    writer.add_file_type({"F32": 0, "F16": 1, "Q8_0": 7}[kind])
    writer.add_string(TASKS_KEY, json.dumps({task: asdict(prompt) for task, prompt in tasks.items()}))
    if card is not None:
        writer.add_string(CARD_KEY, json.dumps(dict(card), ensure_ascii=False))
    _tokenizer(writer, vocabulary)
    for key, values in student.state_dict().items():
        _tensor(writer, key, values.detach().float().numpy(), kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _shape(writer: Any, shape: Shape) -> None:
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
