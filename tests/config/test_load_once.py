"""A graph file is read, checked and resolved once: what is built of it reads nothing again."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from gguf_maker import make_gguf
from policies import policy, stage
from scripting import checked, scripted, write

from cascade import Cascade, lab
from cascade.config import load_graph
from cascade.config.change import change_graph
from cascade.errors import ConfigError
from cascade.models import build_model
from cascade.policy.artifact import write_policy
from cascade.policy.tighten import Tightened, state_path, write_state

RAISED = Tightened(
    was=0.8, accept=0.9, alpha=0.1, delta=0.1, bound=0.05, rows=90, errors=1, audited=99, looks=1,
    alarm="01J8", at="2026-11-21T10:00:00Z",
)  # fmt: skip


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each file was opened, by name."""
    counts: Counter[str] = Counter()
    original = Path.open

    def counting(self: Path, *args: object, **settings: object) -> object:
        counts[self.name] += 1
        return original(self, *args, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "open", counting)
    return counts


def drifting(folder: Path) -> Path:
    """A graph of one checked stage whose threshold drift has raised from 0.8 to 0.9."""
    first = checked("first", "small", accept=0.8, on_drift="tighten", audit_rate=0.01)
    models = {"small": scripted("no", confidence=0.85), "large": scripted("yes")}
    path = write(folder, models, [first, {"name": "last", "ask": ["large"]}])
    write_state(state_path(path), "test", {"first": RAISED})
    return path


def test_every_file_is_opened_once(tmp_path: Path, opened: Counter[str]) -> None:
    make_gguf(tmp_path / "expert.gguf", tasks={"pets": ["cat", "dog"]})
    (tmp_path / "digits.gbnf").write_text("root ::= [0-9]+")
    (tmp_path / "shape.json").write_text(json.dumps({"type": "integer"}))
    make_gguf(tmp_path / "writer.gguf")
    models = {
        "expert": {"kind": "llamacpp", "path": "expert.gguf"},
        "digits": {"kind": "llamacpp", "path": "writer.gguf", "grammar": "digits.gbnf"},
        "shaped": {"kind": "llamacpp", "path": "writer.gguf", "output_schema": "shape.json"},
        "last": scripted("yes"),
    }
    stages = [{"name": name, "ask": [name]} for name in models]
    write_policy(
        policy(stage("expert"), stage("last")).model_copy(update={"setups": {}}), tmp_path / "p.json"
    )
    path = write(tmp_path, models, stages, policy="p.json")
    opened.clear()
    loaded = load_graph(path)
    assert {
        name: opened[name] for name in ("graph.yaml", "p.json", "digits.gbnf", "shape.json")
    } == dict.fromkeys(("graph.yaml", "p.json", "digits.gbnf", "shape.json"), 1)
    assert loaded.policy is not None
    assert loaded.facts["expert"].labels == ("cat", "dog")
    assert loaded.facts["digits"].grammar == "root ::= [0-9]+"
    assert loaded.facts["shaped"].grammar is not None
    opened.clear()
    for name in ("digits.gbnf", "shape.json"):
        (tmp_path / name).unlink()
    built = [build_model(name, loaded.graph.models[name], loaded.base, loaded.facts[name]) for name in models]
    assert [model.closed for model in built] == [True, False, False, False]
    assert not opened


def test_the_thresholds_that_drift_raised_hold_unless_one_asks_for_the_files_own(tmp_path: Path) -> None:
    path = drifting(tmp_path)
    loaded = load_graph(path)
    assert (loaded.graph.stages[0].accept, loaded.raised) == (0.9, {"first": RAISED})
    assert loaded.tightened["first"].accept == 0.9
    plain = load_graph(path, tightened=False)
    assert (plain.graph.stages[0].accept, plain.raised, plain.tightened) == (0.8, {}, {})
    assert loaded.digest == plain.digest


def test_a_changed_graph_keeps_what_drift_raised_but_for_what_is_set(tmp_path: Path) -> None:
    loaded = load_graph(drifting(tmp_path))
    other = change_graph(loaded, ["limits.calls=3"])
    assert (other.graph.limits.calls, other.graph.stages[0].accept) == (3, 0.9)
    assert other.raised == {"first": RAISED}
    chosen = change_graph(loaded, ["first.accept=0.7"])
    assert (chosen.graph.stages[0].accept, chosen.raised) == (0.7, {})
    assert loaded.graph.stages[0].accept == 0.9, "the loaded graph stays as it is"


def test_a_threshold_that_refuses_everything_can_be_changed_around(tmp_path: Path) -> None:
    """A raised threshold above 1 accepts nothing. A graph file could not have it, and a change keeps it."""
    path = drifting(tmp_path)
    refusing = RAISED.model_copy(update={"accept": 1.0000000000000002, "rows": 0, "errors": 0, "bound": 1.0})
    write_state(state_path(path), "test", {"first": refusing})
    other = change_graph(load_graph(path), ["limits.calls=3"])
    assert other.graph.stages[0].accept == 1.0000000000000002


def test_a_broken_file_of_raised_thresholds_is_an_error_where_it_counts(tmp_path: Path) -> None:
    path = drifting(tmp_path)
    state_path(path).write_text("{")
    with pytest.raises(ConfigError, match=r"graph\.drift\.json"):
        load_graph(path)
    assert load_graph(path, tightened=False).graph.stages[0].accept == 0.8


def test_a_replay_judges_the_graph_as_it_is_written(tmp_path: Path) -> None:
    path, database = drifting(tmp_path), f"sqlite:///{tmp_path / 'traces.db'}"
    with Cascade.load(path, trace_db=database) as cascade:
        assert cascade.invoke("hello").stage == "last", "0.85 is below the raised threshold"
    (change,) = lab.replay(path, trace_db=database).comparison.changes
    assert [outcome.stage for outcome in change.new] == ["first"]
