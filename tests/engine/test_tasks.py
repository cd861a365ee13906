"""The prompt contract of an expert is read strictly: a contract that does not fit is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from decoding import with_weights
from gguf_maker import make_gguf

from cascade.engine.tasks import read_task
from cascade.engine.weights import Weights
from cascade.errors import ModelError

GOOD: dict[str, Any] = {
    "max_tokens": 8,
    "labels": ["x", "y"],
    "tokens": [65, 66],
    "suffix": [67],
    "prefix": [68],
}


def encode(path: Path, name: str | None, text: str) -> list[int]:
    def run(weights: Weights) -> list[int]:
        own_name, task = read_task(weights, name)
        return task.prompt(weights, own_name, text).tolist()

    return with_weights(path, run)


def test_a_prompt_is_prefix_lead_text_and_suffix(tmp_path: Path) -> None:
    contract = {"a": GOOD | {"lead": " ", "lowercase": True, "causal": True}}
    path = make_gguf(tmp_path / "m.gguf", contract=contract)
    assert encode(path, "a", "  HELLO Card\n") == [68, 260, 264, 67]


def test_the_only_task_needs_no_name_and_an_unknown_one_is_refused(tmp_path: Path) -> None:
    path = make_gguf(tmp_path / "m.gguf", contract={"a": GOOD})
    assert encode(path, None, "hi") == encode(path, "a", "hi")
    with pytest.raises(ModelError, match="task is 'b'; this expert knows: a"):
        encode(path, "b", "hi")


def test_several_tasks_need_a_name(tmp_path: Path) -> None:
    path = make_gguf(tmp_path / "m.gguf", contract={"a": GOOD, "b": GOOD})
    with pytest.raises(ModelError, match="task is None; this expert knows: a, b"):
        encode(path, None, "hi")


def test_a_text_longer_than_the_expert_was_trained_on_is_refused(tmp_path: Path) -> None:
    path = make_gguf(tmp_path / "expert.gguf", contract={"a": GOOD})
    with pytest.raises(
        ModelError, match="text has 9 tokens; expert 'expert' task 'a' reads at most 8; send it to"
    ):
        encode(path, "a", "123456789")
    assert len(encode(path, "a", "12345678")) == 10


def test_a_file_without_tasks_is_not_an_expert(tmp_path: Path) -> None:
    path = make_gguf(tmp_path / "m.gguf")
    with pytest.raises(ModelError, match=r"no 'cascade.tasks' in its metadata"):
        encode(path, "a", "hi")


@pytest.mark.parametrize(
    "contract",
    [
        [1],
        "text",
        {"a": None},
        {"a": []},
        {"a": {}},
        {"a": GOOD | {"tokens": [65]}},
        {"a": GOOD | {"tokens": [65, 65]}},
        {"a": GOOD | {"tokens": [65, -1]}},
        {"a": GOOD | {"tokens": [65, 10**6]}},
        {"a": GOOD | {"prefix": [10**6]}},
        {"a": GOOD | {"labels": ["x", "x"]}},
        {"a": GOOD | {"labels": [], "tokens": []}},
        {"a": GOOD | {"max_tokens": 0}},
        {"a": GOOD | {"suffix": "abc"}},
        {"a": GOOD | {"suffix": [1] * 2000}},
    ],
)
def test_a_broken_contract_is_refused(tmp_path: Path, contract: Any) -> None:
    path = make_gguf(tmp_path / "m.gguf", contract=contract)
    with pytest.raises(
        ModelError, match=r"its metadata 'cascade.tasks' is broken: .*; export the expert again"
    ):
        encode(path, "a", "hi")
