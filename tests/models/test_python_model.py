"""Models of kind `python`: functions, coroutine functions and scikit-learn pipelines, good and bad."""

from __future__ import annotations

import asyncio
import math
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade import Cascade
from cascade.config.load import load_graph
from cascade.errors import ConfigError, ModelError
from cascade.models import build_model
from cascade.models.base import charge
from cascade.models.function import MAX_STUCK, Caller
from cascade.models.python import Python, PythonSettings
from cascade.records import Request
from cascade.spec.kinds import ModelFacts

CODE = """
import asyncio, sys, threading
from cascade.records import Request

let_go = threading.Event()

def shout(text): return text.upper()
async def slowly(text):
    await asyncio.sleep(0)
    return text[::-1]
def split(text): return {"spam": 0.75, "ham": 0.25}
def whole(request): return f"{type(request).__name__} {request.text} {request.metadata}"
def stuck(text): let_go.wait(30); return "late"
def bad(text): raise KeyError(text)
def leave(text): sys.exit(3)
def end(text): raise StopIteration
def number(text): return 3
class Thing:
    def method(self, text): return "from " + text
thing = Thing()
"""
GRAPH = """
name: own
trace: {store_text: true}
models:
  mine: {kind: python, call: "own.py:%s", local: true, timeout: 5, %s}
stages:
  - {name: only, ask: [mine]%s}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "own.py").write_text(CODE, encoding="utf-8")
    return tmp_path


def model(folder: Path, call: str, **settings: Any) -> Python:
    built = build_model("mine", PythonSettings(kind="python", call=f"own.py:{call}", **settings), folder)
    assert isinstance(built, Python)
    return built


def graph(folder: Path, call: str, settings: str = "price_per_call: 0", stage: str = "") -> Path:
    path = folder / "graph.yaml"
    path.write_text(GRAPH % (call, settings, stage), encoding="utf-8")
    return path


@pytest.mark.parametrize(("call", "answer"), [
    ("shout", "HELLO"), ("slowly", "olleh"), ("thing.method", "from hello"),
    ("whole", "Request hello {'k': 1}"),
])  # fmt: skip
def test_a_function_answers_in_a_graph_and_the_run_is_traced(folder: Path, call: str, answer: str) -> None:
    with Cascade.load(graph(folder, call), trace_db=str(folder / "t.db")) as cascade:
        result = cascade.invoke("hello", metadata={"k": 1})
    assert (result.status, result.text) == ("accepted", answer)
    assert result.trace[0].calls[0].error is None


def test_a_label_distribution_is_the_confidence_of_the_stage(folder: Path) -> None:
    check = ", confidence: {by: labels}, accept: 0.7"
    with Cascade.load(graph(folder, "split", "labels: [ham, spam]", check)) as cascade:
        result = cascade.invoke("hello")
    assert (result.status, result.text, result.confidence) == ("accepted", "spam", 0.75)
    assert result.trace[0].calls[0].labels == {"spam": 0.75, "ham": 0.25}


def test_a_call_costs_its_price_and_counts_no_tokens(folder: Path) -> None:
    with Cascade.load(graph(folder, "shout", "price_per_call: 0.002")) as cascade:
        result = cascade.invoke("hello")
    call = result.trace[0].calls[0]
    assert (result.cost_usd, call.tokens_in, call.tokens_out) == (pytest.approx(0.002), 0, 0)
    limited = graph(folder, "shout", "price_per_call: 0.002")
    limited.write_text(limited.read_text() + "limits: {cost_usd: 0.001}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"stage 'only' may cost \$0\.002 for its answers alone"):
        load_graph(limited)


@pytest.mark.parametrize(("call", "reason"), [
    ("bad", "raised KeyError: 'hello'"),
    ("leave", "own.py:leave raised SystemExit: 3"),
    ("end", "raised StopIteration"),
    ("number", "returned a int; expected a text"),
    ("split", "returned a label distribution and the model has no labels"),
])  # fmt: skip
def test_whatever_a_function_does_is_a_failed_paid_call(folder: Path, call: str, reason: str) -> None:
    with Cascade.load(graph(folder, call, "price_per_call: 0.5")) as cascade:
        result = cascade.invoke("hello")
        again = cascade.invoke("hello")
    assert result.status == again.status == "abstained"
    assert reason in (result.trace[0].calls[0].error or "")
    assert result.cost_usd == 0.5


async def test_a_function_that_does_not_end_is_left_behind_and_at_last_not_called_any_more(
    folder: Path,
) -> None:
    caller = Caller(threading.Event().wait, "mine.py:forever")
    before = threading.active_count()
    for _ in range(MAX_STUCK):
        with pytest.raises(TimeoutError):
            await _soon(caller)
    with pytest.raises(RuntimeError, match=f"{MAX_STUCK} calls of mine.py:forever have not ended"):
        await _soon(caller)
    assert threading.active_count() - before == MAX_STUCK


def test_a_function_that_is_too_slow_is_a_failed_call(folder: Path) -> None:
    path = graph(folder, "stuck")
    path.write_text(path.read_text().replace("timeout: 5", "timeout: 0.05"), encoding="utf-8")
    with Cascade.load(path) as cascade:
        result = cascade.invoke("hello")
    assert "no answer within 0.05 s" in (result.trace[0].calls[0].error or "")


async def _soon(caller: Caller) -> Any:
    async with asyncio.timeout(0.005):
        return await caller.call()


LABELS = ("a", "b", "c")
VALUES = st.one_of(
    st.text(max_size=3), st.sampled_from(LABELS), st.none(), st.integers(), st.binary(max_size=2),
    st.dictionaries(st.sampled_from([*LABELS, "d"]), st.floats() | st.just(1.0) | st.text(max_size=2)),
)  # fmt: skip


@given(VALUES)
def test_any_value_is_a_valid_reply_or_a_failed_call_that_names_the_function(value: Any) -> None:
    settings = PythonSettings(kind="python", call="m:f", labels=[*LABELS], price_per_call=1.0)
    python = Python("mine", settings, lambda text: value, ModelFacts(LABELS))
    try:
        reply = python._reply(value)
    except ModelError as failure:
        error = failure
    else:
        error = None
    if error is not None:
        assert "m:f returned" in str(error)
        assert charge(python.price, error) == 1.0
        return
    assert reply.text in LABELS
    assert charge(python.price, reply) == 1.0
    if reply.labels is not None:
        assert tuple(sorted(reply.labels)) == LABELS
        assert math.fsum(reply.labels.values()) == pytest.approx(1.0, abs=2e-3)
        assert reply.text == max(reply.labels, key=lambda label: reply.labels[label])  # type: ignore[index]


def test_a_scikit_learn_pipeline_is_a_model(folder: Path) -> None:
    pytest.importorskip("sklearn")
    (folder / "own.py").write_text(
        """
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

texts = ["my card is lost", "card stolen", "lost my card", "what is the rate", "exchange rate", "rate today"]
classifier = make_pipeline(TfidfVectorizer(), LogisticRegression(C=100.0))
classifier.fit(texts, ["card"] * 3 + ["rate"] * 3)
empty = LogisticRegression()
""",
        encoding="utf-8",
    )
    check = ", confidence: {by: labels}, accept: 0.6"
    with Cascade.load(graph(folder, "classifier", "labels: [rate, card]", check)) as cascade:
        result = cascade.invoke("I lost a card")
    assert (result.status, result.text) == ("accepted", "card")
    assert result.confidence is not None
    assert result.confidence > 0.6
    with pytest.raises(ConfigError, match="classes are card, rate; give these as 'labels'"):
        model(folder, "classifier", labels=["a", "b"])
    with pytest.raises(ConfigError, match="has no classes_; fit it"):
        model(folder, "empty", labels=["a", "b"])


@pytest.mark.parametrize(("call", "reason"), [
    ("own.py:nothing", "own.py defines no 'nothing'"),
    ("other.py:f", "Python file 'other.py' does not exist; files there: own.py"),
    ("no_such_package.module:f", "no module 'no_such_package'; install it"),
    ("json.nothing:f", "package 'json' has no module 'nothing'"),
    ("json:no_such", "json defines no 'no_such'"),
    ("json", "names no function; expected package.module:function"),
    ("own.py:", "names no function"),
    ("os;x:f", "names no function"),
])  # fmt: skip
def test_check_names_a_function_that_does_not_exist_and_runs_nothing(
    folder: Path, call: str, reason: str
) -> None:
    (folder / "own.py").write_text(f"{CODE}\nopen({str(folder / 'ran')!r}, 'w').close()\n", encoding="utf-8")
    path = graph(folder, "shout")
    load_graph(path)
    path.write_text(path.read_text().replace("own.py:shout", call), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"models\.mine\.call") as error:
        load_graph(path)
    assert reason in str(error.value)
    assert not (folder / "ran").exists()


def test_a_module_that_breaks_on_import_is_an_error_that_names_it(folder: Path) -> None:
    for code in ("1 / 0", "raise SystemExit(4)", "def f(:"):
        (folder / "own.py").write_text(f"def f(text): return text\n{code}\n", encoding="utf-8")
        with pytest.raises(ConfigError, match=r"own\.py.*(cannot be imported|cannot be read)"):
            Cascade.load(graph(folder, "f"))


def test_the_fingerprint_follows_the_source_the_files_and_the_labels(folder: Path) -> None:
    (folder / "weights.bin").write_bytes(b"1")

    def fingerprint(**settings: Any) -> str:
        kind = PythonSettings(kind="python", call="own.py:split", files=["weights.bin"], **settings)
        return kind.fingerprint(folder, kind.resolve(folder))

    first = fingerprint()
    assert first == fingerprint() == fingerprint(tier="opus")
    (folder / "weights.bin").write_bytes(b"2")
    second = fingerprint()
    (folder / "own.py").write_text(f"{CODE}\n# changed\n", encoding="utf-8")
    assert len({first, second, fingerprint(), fingerprint(labels=["ham", "spam"])}) == 4


def test_what_cannot_be_called_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"own\.py:let_go is a Event; expected a function of one text"):
        model(folder, "let_go")


async def test_requests_that_must_stay_here_reach_only_a_function_that_says_it_is_local(folder: Path) -> None:
    path = graph(folder, "shout")
    path.write_text(path.read_text().replace("local: true, ", ""), encoding="utf-8")
    async with Cascade.load(path) as cascade:
        result = await cascade.answer(Request(text="hello", local_only=True))
    assert (result.status, result.trace[0].calls) == ("abstained", ())
