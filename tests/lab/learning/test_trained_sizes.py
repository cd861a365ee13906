"""The sizes trained with PyTorch, from rows to a file that answers in the engine, on a small encoder."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra train")
pytest.importorskip("tokenizers", reason="needs the extra train")

from bert_maker import small_bert  # noqa: E402

from cascade.errors import ConfigError  # noqa: E402
from cascade.formats.expert_file import read_expert  # noqa: E402
from cascade.formats.gguf import read_tasks  # noqa: E402
from cascade.lab.fitting.embed import embed_texts  # noqa: E402
from cascade.lab.learning import auto_size, tiny_size, tuned_size  # noqa: E402
from cascade.lab.learning.data import Data  # noqa: E402
from cascade.lab.learning.session import Session  # noqa: E402
from cascade.lab.learning.settings import LearnSettings  # noqa: E402
from cascade.lab.learning.sizes import Material, Trained  # noqa: E402
from cascade.lab.learning.store import Store  # noqa: E402
from cascade.lab.learning.vectors import Vectors  # noqa: E402
from cascade.lab.networks.encoder_file import read_encoder, write_encoder  # noqa: E402
from cascade.models import build_model  # noqa: E402
from cascade.models.base import Prompt  # noqa: E402
from cascade.models.llamacpp import LlamaCppSettings  # noqa: E402

TELLING = {"lost card": ["card", "lost", "stolen"], "cash": ["cash", "money"], "limit": ["limit", "raise"]}
PLAIN = ["please", "help", "with", "the", "and", "need", "today", "about", "some", "have", "question"]
WORDS = [*PLAIN, *(word for words in TELLING.values() for word in words)]
LIMIT = 32


def rows(per_label: int = 24) -> Data:
    draw = random.Random(0)
    found = {
        " ".join([*draw.sample(PLAIN, 3), draw.choice(words), draw.choice(PLAIN)]): label
        for label, words in TELLING.items()
        for _ in range(per_label)
    }
    return Data(list(found), list(found.values()), np.arange(len(found)), None, None, [])


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_bert(WORDS, tmp_path_factory.mktemp("encoder"))


Maker = Callable[..., Material]


@pytest.fixture
def material(encoder: Path) -> Iterator[Maker]:
    """A maker of the material of a call, all of whose folders are let go of at the end."""
    stores: list[Store] = []

    def make(folder: Path, session: Session | None = None) -> Material:
        made = material_of(encoder, folder, session or Session(20.0))
        stores.append(made.store)
        return made

    yield make
    for store in stores:
        store.close(keep=True)


def material_of(encoder: Path, folder: Path, session: Session) -> Material:
    settings = LearnSettings(out=folder / "bank.gguf", graph_out=folder / "bank.yaml")
    store = Store(settings.out, resume=True, note=session.note)
    vectors = Vectors(
        encoder,
        LIMIT,
        lambda texts, report: embed_texts(encoder, texts, LIMIT, lambda _, share: report(share), 1),
        session,
        store,
    )
    return Material(settings, ["money for the question", "raise"], session, store, vectors)


def answered(path: Path, texts: list[str]) -> list[str]:
    async def ask() -> list[str]:
        model = build_model("it", LlamaCppSettings(kind="llamacpp", path=str(path), task="bank"), path.parent)
        try:
            return [(await model.ask(Prompt(text))).text for text in texts]
        finally:
            await model.aclose()

    return asyncio.run(ask())


def accuracy(expert: Trained, data: Data) -> float:
    answers = expert.answers(data.texts, Session(1.0))
    return float(
        np.mean([expert.labels[k] == label for k, label in zip(answers.predicted, data.labels, strict=True)])
    )


def test_an_encoder_survives_the_way_through_pytorch(encoder: Path, tmp_path: Path) -> None:
    source = read_encoder(encoder)
    write_encoder(source, source.encoder, tmp_path / "copy.gguf")
    assert (tmp_path / "copy.gguf").read_bytes() == encoder.read_bytes()
    texts = ["I have LOST the card!", "", "help " * 60]
    from cascade.lab.networks.finetune import embed

    ours = embed(source.encoder, source.tokenize(texts, LIMIT))
    theirs = embed_texts(encoder, texts, LIMIT, lambda stage, share: None, 1)
    assert (ours * theirs).sum(1) == pytest.approx(1.0, abs=2e-3)


def test_what_is_no_encoder_is_refused(tmp_path: Path, root: Path) -> None:
    with pytest.raises(ConfigError, match=r"architecture is 'llama'; only 'bert' can be fine-tuned"):
        read_encoder(root / "cascade" / "experts" / "tiny.gguf")
    (tmp_path / "text.gguf").write_text("no")
    with pytest.raises(ConfigError, match="cannot be read as a GGUF file"):
        read_encoder(tmp_path / "text.gguf")
    with pytest.raises(ConfigError, match="cannot be read as a GGUF file"):
        read_encoder(tmp_path / "absent.gguf")


def test_tuned_answers_in_the_engine_as_it_was_measured(material: Maker, tmp_path: Path) -> None:
    data, out = rows(), tmp_path / "bank.gguf"
    expert = tuned_size.train(data, material(tmp_path))
    assert accuracy(expert, data) > 0.9
    held = set(expert.rows.tolist())
    assert 0 < len(held) < len(data.texts) / 4
    expert.write(out, "bank", {"made": "today"})
    found = read_expert(out)
    assert found is not None
    assert found.tasks["bank"].card == {"made": "today"}
    predicted = expert.answers(data.texts[:12], Session(1.0)).predicted
    assert answered(out, data.texts[:12]) == [expert.labels[k] for k in predicted]


def test_the_same_seed_gives_the_same_tuned_file_also_when_resumed(material: Maker, tmp_path: Path) -> None:
    data, files = rows(), []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        given = material(tmp_path / name)
        files.append(tmp_path / name / "bank.gguf")
        tuned_size.train(data, given).write(files[-1], "bank", {})
    again = tmp_path / "one" / "again.gguf"
    given.store.close(keep=True)
    tuned_size.train(data, material(tmp_path / "two")).write(again, "bank", {})
    assert files[0].read_bytes() == files[1].read_bytes() == again.read_bytes()


def test_a_stopped_call_keeps_the_best_so_far(material: Maker, tmp_path: Path) -> None:
    asked = 0

    def stopped() -> bool:
        nonlocal asked
        asked += 1
        return asked > 12

    session = Session(20.0, stopped=stopped)
    expert = tuned_size.train(rows(), material(tmp_path, session))
    assert session.cut_short == "stopped"
    assert len(expert.notes["epochs"]) < 20
    expert.write(tmp_path / "bank.gguf", "bank", {})
    assert answered(tmp_path / "bank.gguf", ["lost card"])[0] in TELLING


def test_tiny_answers_in_the_engine_as_it_was_measured(material: Maker, tmp_path: Path) -> None:
    data, out = rows(), tmp_path / "bank.gguf"
    expert = tiny_size.train(data, material(tmp_path))
    assert expert.confidence == {"by": "labels"}
    assert len(expert.scores.predicted) == len(expert.rows) > 0
    assert accuracy(expert, data) > 0.8
    expert.write(out, "bank", {"made": "today"})
    assert list(read_tasks(out)) == ["bank"]
    predicted = expert.answers(data.texts[:12], Session(1.0)).predicted
    assert answered(out, data.texts[:12]) == [expert.labels[k] for k in predicted]
    endless = expert.answers(["help " * 500], Session(1.0))
    assert endless.confidence.tolist() == [0.0]


def test_auto_takes_the_smallest_that_is_about_as_good_and_says_why(material: Maker, tmp_path: Path) -> None:
    notes: list[str] = []
    session = Session(20.0, on_note=notes.append)
    expert = auto_size.train(rows(), material(tmp_path, session))
    reached = expert.notes["sizes"]
    assert set(reached) == {"tiny", "head", "tuned"}
    assert expert.size == auto_size.choose(reached)
    assert notes[-1].startswith(f"size {expert.size}: the smallest within 0.5 points of the best")


def test_the_choice_of_auto() -> None:
    assert auto_size.choose({"head": 0.93, "tuned": 0.94}) == "tuned"
    assert auto_size.choose({"head": 0.935, "tuned": 0.94, "tiny": 0.934}) == "head"
    assert auto_size.choose({"head": 0.93, "tuned": 0.94, "tiny": 0.935}) == "tiny"
    assert "no time for tiny and tuned: give more --minutes" in auto_size.why({"head": 0.9}, "head")
