"""A student and its GGUF file are the same function, and llama.cpp cuts text into the same tokens."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the extra train")
pytest.importorskip("tokenizers", reason="needs the extra train")

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "benchmarks"))

from probe import Probe  # noqa: E402

from cascade.formats.gguf import read_tasks  # noqa: E402
from cascade.lab.networks import student_file, vocab  # noqa: E402
from cascade.lab.networks.student import Shape, Student  # noqa: E402

TASKS = {"colour": ["red", "green", "blue"], "size": ["big", "small"]}
WORDS = dict.fromkeys(
    [
        "the",
        "quick",
        "brown",
        "fox",
        "jumps",
        "over",
        "a",
        "lazy",
        "dog",
        "while",
        "it's",
        "raining",
        "in",
        "paris",
        "12345",
    ],
    5,
)
STRINGS = [
    "",
    " ",
    "Hello  world  ",
    " 12345 £5.30 naïve café",
    "日本語 テスト 😀👍🏽 x",
    "it's we've I'LL don't",
    "a\tb\nc\r\nd",
    "\u00a0nbsp\u2003em\u200bzero",
    'C:\\Windows\\system32\\cmd.exe /c "x" <colour:red> <ask>',
    "٣٤ ½ Ⅷ x²",
    "e\u0301 combining İstanbul ǅ ß",
    "-- ... !!! ?? __init__ #1 @you 50% a_b-c",
    "नमस्ते दुनिया ก็",
    "HKLM\\Software\\Run; rundll32.exe,Start 0xDEADBEEF",
    "a" * 300,
]


@pytest.fixture(scope="module")
def vocabulary() -> vocab.Vocabulary:
    return vocab.learn(WORDS, 320, TASKS)


def student_of(vocabulary: vocab.Vocabulary, causal: bool) -> Student:
    torch.manual_seed(0)
    return Student(Shape(len(vocabulary.tokens), 64, 2, 2, 96, causal=causal)).eval()


def whole_row(student: Student, ids: list[int]) -> Any:
    with torch.inference_mode():
        return student.logits(student(torch.tensor([ids])), torch.arange(student.shape.vocab))[0].numpy()


def written(
    vocabulary: vocab.Vocabulary,
    student: Student,
    path: Path,
    kind: str = "F32",
    tasks: Iterable[str] = TASKS,
) -> Path:
    contract = student_file.prompts(vocabulary, dict.fromkeys(tasks, 400), student.shape.causal)
    student_file.write(student, vocabulary, contract, path, kind)
    return path


@pytest.mark.parametrize("causal", [False, True])
def test_logits_equal_torch(vocabulary: vocab.Vocabulary, tmp_path: Path, causal: bool) -> None:
    """Attention both ways survives the export, and so does causal attention."""
    student = student_of(vocabulary, causal)
    probe = Probe(written(vocabulary, student, tmp_path / "tiny.gguf"))
    for text in ("the quick brown fox", "it rains", "", "a lazy dog in paris 12345"):
        ids = vocabulary.encode([text], 400)[0]
        wanted = whole_row(student, ids)
        assert probe.row(ids) == pytest.approx(wanted, abs=2e-3)
    probe.close()


def test_tokens_equal_llama_cpp(vocabulary: vocab.Vocabulary, tmp_path: Path) -> None:
    """Also for text that looks like a control token."""
    probe = Probe(written(vocabulary, student_of(vocabulary, False), tmp_path / "tiny.gguf"))
    for text in STRINGS:
        assert probe.prompt("colour", text) == vocabulary.encode([text], 400)[0], text
    probe.close()


def test_text_never_makes_a_label_token(vocabulary: vocab.Vocabulary, tmp_path: Path) -> None:
    probe = Probe(written(vocabulary, student_of(vocabulary, False), tmp_path / "tiny.gguf"))
    tokens = probe.tokenize(" <colour:red> <size:big> <ask>")
    assert max(tokens) < vocabulary.plain
    probe.close()


def test_contract(vocabulary: vocab.Vocabulary, tmp_path: Path) -> None:
    """The metadata says all that an engine needs."""
    tasks = read_tasks(written(vocabulary, student_of(vocabulary, False), tmp_path / "tiny.gguf"))
    assert list(tasks) == ["colour", "size"]
    assert tasks["size"]["labels"] == ["big", "small"]
    assert tasks["size"]["suffix"] == [vocabulary.ask]
    assert tasks["size"]["causal"] is False
    assert len({*tasks["size"]["tokens"], *tasks["colour"]["tokens"]}) == 5


def test_long_text_is_cut_before_the_question(vocabulary: vocab.Vocabulary) -> None:
    ids = vocabulary.encode(["fox " * 100], 7)[0]
    assert len(ids) == 8
    assert ids[-1] == vocabulary.ask


@pytest.mark.parametrize("kind", ["F16", "Q8_0"])
def test_small_files_agree(vocabulary: vocab.Vocabulary, tmp_path: Path, kind: str) -> None:
    """Rounded weights move the logits a little, and only a little."""
    student = student_of(vocabulary, False)
    probe = Probe(written(vocabulary, student, tmp_path / "tiny.gguf", kind))
    ids = vocabulary.encode(["the quick brown fox"], 400)[0]
    wanted = whole_row(student, ids)
    assert probe.row(ids) == pytest.approx(wanted, abs=0.05)
    probe.close()


def test_any_text_can_be_a_label(tmp_path: Path) -> None:
    """Labels never are token texts, so none is a piece of text or needs an escape."""
    names = ["<ask>", "a b", "é:>", "the"]
    made = vocab.learn(WORDS, 320, {"odd task": names})
    tasks = read_tasks(written(made, student_of(made, False), tmp_path / "odd.gguf", tasks=["odd task"]))
    assert tasks["odd task"]["labels"] == names
    probe = Probe(tmp_path / "odd.gguf")
    assert probe.prompt("odd task", " ".join(names)) == made.encode([" ".join(names)], 400)[0]
    probe.close()


def test_the_same_student_gives_the_same_bytes_and_a_failed_write_leaves_the_old_file(
    vocabulary: vocab.Vocabulary, tmp_path: Path
) -> None:
    student, path = student_of(vocabulary, False), tmp_path / "tiny.gguf"
    first = written(vocabulary, student, path).read_bytes()
    assert written(vocabulary, student, path).read_bytes() == first
    with pytest.raises(KeyError):
        written(vocabulary, student, path, "Q1_9")
    assert path.read_bytes() == first
    assert [each.name for each in tmp_path.iterdir()] == ["tiny.gguf"]
