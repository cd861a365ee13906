"""`learn` from end to end with the bundled encoder: the expert, its card, its graph, its promise."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from desk_rows import example, many

from cascade import Cascade, lab
from cascade.config.load import load_graph
from cascade.errors import RequestError
from cascade.formats.expert_file import read_expert

pytest.importorskip("llama_cpp", reason="needs the extra local")


def learn(source: Path, **options: object) -> lab.Learned:
    folder = source.parent
    places = {"out": folder / "experts" / "desk.gguf", "graph_out": folder / "graphs" / "desk.yaml"}
    return lab.learn(source, **(places | options))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> tuple[lab.Learned, list[str]]:
    """An expert of four queues and 100 rows, and what was said while it was made."""
    notes: list[str] = []
    source = example(tmp_path_factory.mktemp("desk"), labels=4)
    return learn(source, rows=lab.RowOptions(slice="channel"), max_risk=0.2, on_note=notes.append), notes


def test_the_expert_answers_through_its_graph_at_once(desk: tuple[lab.Learned, list[str]]) -> None:
    learned, _ = desk
    loaded = load_graph(learned.graph)
    assert loaded.facts["strong"].labels == loaded.facts["expert"].labels
    assert sorted(loaded.facts["expert"].labels or ()) == ["email", "password", "printer", "vpn"]
    with Cascade.load(learned.graph) as graph:
        result = graph.invoke("The printer on the third floor has a paper jam", local_only=True)
        text = learned.commands[0].split("'")[1]
        sure = graph.invoke(text, local_only=True)
    assert (result.text or result.draft) == "printer"
    assert result.confidence is not None
    assert (sure.status, sure.tier) == ("accepted", "haiku")


def test_the_card_is_in_the_file_and_beside_it(desk: tuple[lab.Learned, list[str]]) -> None:
    learned, _ = desk
    inside = read_expert(learned.expert)
    assert inside is not None
    assert list(inside.tasks) == ["desk"]
    beside = json.loads(learned.card_path.read_text(encoding="utf-8"))
    card = inside.tasks["desk"].card
    assert {key: beside[key] for key in card} == card
    assert set(beside) - set(card) == {"file", "bytes", "sha256", "seconds", "made"}
    assert card["data"]["rows"] == 100
    assert card["versions"]["cascade"]
    figures = card["figures"]["cross_fitted"]
    low, high = figures["accuracy_ci"]
    assert 0.7 < low < figures["accuracy"] < high <= 1.0
    assert figures["known_auroc"] is None
    assert "not measured" in figures["known_note"]
    assert sum(part["rows"] for part in card["slices"]) == 100
    assert {part["value"] for part in card["slices"]} == {"mail", "phone", "portal"}
    assert all(pair["label"] != pair["answered"] for pair in card["confused"])


def test_what_was_found_and_held_out_is_said(desk: tuple[lab.Learned, list[str]]) -> None:
    learned, notes = desk
    told = "\n".join(notes)
    data = learned.card["data"]
    assert "100 rows, 4 labels" in told
    assert f"{data['train']} rows train, {data['held_out']} are held out: " in told
    assert data["train"] + data["held_out"] == 100
    assert not list(learned.expert.parent.glob(".*"))


@pytest.mark.slow
def test_a_promise_is_certified_on_rows_that_did_not_train(tmp_path: Path) -> None:
    learned = learn(many(tmp_path, 400), max_risk=0.05)
    made = learned.verdict.certificate
    assert made is not None
    data = learned.card["data"]
    assert made.rows == data["held_out"] <= 133
    assert made.bound <= 0.05
    assert learned.card["figures"]["held_out"]["wrong_accepted"] == made.errors
    text = learned.graph.read_text()
    assert "Certified: with probability 0.9, at most 5 % of what the expert answers is wrong." in text
    assert learned.commands[2].startswith("cascade serve ")


@pytest.mark.slow
def test_a_refusal_still_writes_a_graph_that_says_so(tmp_path: Path) -> None:
    learned = learn(example(tmp_path, labels=2), max_risk=0.01)
    assert learned.verdict.certificate is None
    assert learned.card["promise"]["rows_needed"] > 200
    assert learned.card["data"]["held_out"] == 0
    text = learned.graph.read_text()
    assert "Not certified" in text
    assert "would need about" in text
    assert " --test " in learned.commands[2]
    load_graph(learned.graph)


@pytest.mark.slow
def test_with_a_test_file_every_row_trains_and_known_texts_do_not_count(tmp_path: Path) -> None:
    train, test = many(tmp_path, 300), tmp_path / "test.csv"
    lines = many(tmp_path, 500, "other.csv").read_text().splitlines()
    test.write_text("\n".join([lines[0], *lines[251:]]) + "\n")  # the first 50 of these are in training
    learned = learn(train, test=test, max_risk=0.05)
    assert (learned.card["data"]["train"], learned.card["data"]["held_out"]) == (300, 0)
    assert learned.card["data"]["test_rows"] == 200
    assert learned.verdict.certificate is not None
    assert learned.verdict.certificate.rows <= 200


@pytest.mark.slow
def test_the_same_seed_gives_the_same_file_and_an_old_one_is_replaced(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    for folder in (first, second):
        folder.mkdir()
        example(folder, labels=2)
    (second / "experts").mkdir()
    (second / "experts" / "desk.gguf").write_bytes(b"old")
    made = [learn(folder / "desk.csv").expert.read_bytes() for folder in (first, second)]
    assert made[0] == made[1]
    again = learn(first / "desk.csv")  # its own graph is replaced without asking
    assert again.expert.read_bytes() == made[0]
    other = learn(second / "desk.csv", seed=1)
    assert other.card["seed"] == 1


def test_stopping_while_it_fits_keeps_a_finished_expert_that_says_so(tmp_path: Path) -> None:
    stages: list[str] = []
    source = example(tmp_path, labels=3)
    learned = learn(
        source, on_progress=lambda stage, _: stages.append(stage), stopped=lambda: "fitting" in stages
    )
    assert learned.cut_short == "stopped"
    inside = read_expert(learned.expert)
    assert inside is not None
    assert inside.tasks["desk"].card["cut_short"] == "stopped"
    with Cascade.load(learned.graph) as graph:
        assert graph.invoke("My password has expired", local_only=True).trace


@pytest.mark.slow
def test_stopping_before_there_is_anything_leaves_what_resume_goes_on_with(tmp_path: Path) -> None:
    source = many(tmp_path, 1600)
    with pytest.raises(lab.StoppedError, match=r"texts are embedded, and nothing is fitted yet; --resume"):
        learn(source, stopped=lambda: len(list(tmp_path.glob("experts/.*/vectors-*"))) >= 2)
    assert not (tmp_path / "experts" / "desk.gguf").exists()
    (kept,) = (tmp_path / "experts").iterdir()
    assert list(kept.glob("vectors-*"))
    learned = learn(source, resume=True)
    assert not kept.exists()
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    many(fresh, 1600)
    assert learn(fresh / "many.csv").expert.read_bytes() == learned.expert.read_bytes()


@pytest.mark.slow
def test_time_that_allows_only_some_rows_uses_these_and_says_so(tmp_path: Path) -> None:
    notes: list[str] = []
    source = many(tmp_path, 4000)
    learned = learn(source, minutes=0.05, on_note=notes.append)
    assert learned.cut_short == "time"
    assert learned.card["data"]["used"] < 4000
    assert any("of 4,000 rows are used" in note for note in notes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_risk": 0.0}, "--max-risk is 0; expected a number between 0 and 1"),
        ({"delta": 1.5}, "--delta is 1.5"),
        ({"minutes": 0}, "--minutes is 0; expected a number above 0"),
        ({"minutes": float("nan")}, "--minutes is nan"),
        ({"size": "huge"}, "--size is 'huge'; known: head"),
        ({"out": "desk.bin"}, "--out is 'desk.bin'; expected a file that ends in .gguf"),
        ({"graph_out": "desk.txt"}, "--graph-out is 'desk.txt'; expected a file that ends in .yaml"),
        ({"rows": lab.RowOptions(slice="nothing")}, "no column 'nothing', which --slice names"),
        ({"seed": -1}, "--seed is -1"),
    ],
)
def test_a_wrong_setting_is_told_before_anything_is_made(
    options: dict[str, object], message: str, tmp_path: Path
) -> None:
    source = example(tmp_path, labels=2)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(RequestError) as refused:
        learn(source, **options)
    assert message in str(refused.value)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
def test_a_graph_that_somebody_has_changed_is_never_replaced(tmp_path: Path) -> None:
    source = example(tmp_path, labels=2)
    learned = learn(source)
    text = learned.graph.read_text().replace("gpt-5.2", "gpt-9")
    learned.graph.write_text(text)
    with pytest.raises(RequestError, match=r"not as 'cascade learn' wrote it; give another --graph-out"):
        learn(source)
    assert learned.graph.read_text() == text


def test_a_file_that_is_needed_is_never_replaced(tmp_path: Path) -> None:
    source = example(tmp_path, labels=2)
    target = tmp_path / "rows.json"
    rows = list(csv.DictReader(source.read_text(encoding="utf-8").splitlines()))
    target.write_text(json.dumps(rows))
    with pytest.raises(RequestError, match="is FILE itself and would be replaced"):
        learn(target, out=tmp_path / "rows.gguf")  # whose card would be rows.json
    assert json.loads(target.read_text()) == rows


def test_test_rows_without_a_learned_label_are_refused(tmp_path: Path) -> None:
    source = example(tmp_path, labels=2)
    test = tmp_path / "test.csv"
    test.write_text("message,queue\nno toner at all,paper\nthe roof leaks,roof\n")
    with pytest.raises(RequestError, match="no row has a label that was learned"):
        learn(source, test=test)
    test.write_text(source.read_text())
    with pytest.raises(RequestError, match="every row is among the training rows"):
        learn(source, test=test)
