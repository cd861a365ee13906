"""The examples, run as their first lines say: two scripts, and a real server on a loopback port."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gguf_maker import CHATML, make_gguf

from cascade import Cascade

ROOT = Path(__file__).parents[1]


def script(name: str, *args: str) -> str:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / name), *args], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def test_embed_prints_the_answer_and_the_rule_of_each_stage() -> None:
    out = script("embed.py", "please", "freeze", "my", "card").splitlines()
    assert "tier" in out[0] or "the best draft is" in out[0]
    assert out[1].startswith("  first: ")
    assert " by rule " in out[1]


def test_embed_shows_an_answer_a_climb_and_an_abstention_by_default() -> None:
    lines = script("embed.py").splitlines()
    results = [line for line in lines if not line.startswith("  ")]
    assert [line.split()[0] for line in results] == ["alarm", "plug_type", "abstained:"]
    assert lines[1] == "  first: accept by rule confident"
    assert lines[3:5] == ["  first: escalate by rule below_threshold", "  second: accept by rule confident"]
    assert lines[-1] == "  last: abstain by rule local_only"


QUESTION = re.compile(r"^# (Try|Escalates|Abstains without a key): (.+)$", re.MULTILINE)
LOCAL_GRAPHS = ("support", "banking", "desk", "threats")


@pytest.mark.parametrize("name", LOCAL_GRAPHS)
def test_the_questions_of_a_graph_show_what_they_say(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a key or a network: the first is answered by the smallest expert, the others are not."""
    for variable in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(variable, raising=False)
    path = ROOT / "graphs" / f"{name}.yaml"
    questions = dict(QUESTION.findall(path.read_text()))
    with Cascade.load(path, record=False) as cascade:
        results = dict(zip(questions, cascade.batch(list(questions.values())), strict=True))
    assert (results["Try"].status, results["Try"].tier) == ("accepted", "haiku")
    assert (results["Abstains without a key"].status, results["Abstains without a key"].rule) == (
        "abstained",
        "unavailable",
    )
    climbs = results.get("Escalates")
    assert (climbs is None) == (name == "threats")  # it has one expert only
    if climbs is not None:
        assert (climbs.status, climbs.tier) == ("accepted", "sonnet")
        assert "below_threshold" in [step.decision.rule for step in climbs.trace]


def test_every_graph_of_local_experts_is_tried() -> None:
    tried = {path.stem for path in (ROOT / "graphs").glob("*.yaml") if "bundled:" in path.read_text()}
    assert tried == set(LOCAL_GRAPHS)


def test_walkthrough_runs_from_top_to_bottom() -> None:
    out = script("walkthrough.py")
    assert "graph TD" in out
    assert "accepted plug_type" in out
    assert " abstained " in out
    assert "signals:" in out
    assert "how do I bleed a radiator" in out


def test_tools_are_run_by_the_application_and_bad_calls_escalate() -> None:
    assert script("tools.py").splitlines() == [
        "  first: escalate by rule invalid",
        "  last: accept by rule unchecked",
        "add({'a': 17, 'b': 25}) = 42",
        "  first: escalate by rule invalid",
        "  last: accept by rule unchecked",
        "The sum is 42. (opus, $0.000058)",
    ]


def test_a_form_is_filled_by_a_local_model_under_a_grammar(tmp_path: Path) -> None:
    make_gguf(tmp_path / "m.gguf", chat_template=CHATML, n_ctx=2048)
    out = script("structured.py", str(tmp_path / "m.gguf"))
    assert out.startswith("accepted: {")
    assert "/urgent: mean log-probability -" in out
    assert out.splitlines()[-1] == "accepted"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The service behind uvicorn; its port is read from uvicorn's own log."""
    env = os.environ | {"CASCADE_TRACE_DB": str(tmp_path_factory.mktemp("service") / "traces.db")}
    command = ["-m", "uvicorn", "--app-dir", "examples", "service:app", "--port", "0", "--no-use-colors"]
    with subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, env=env, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as process:
        assert process.stderr is not None
        log = []
        for line in process.stderr:
            log.append(line.decode())
            if "running on http://" in log[-1]:
                break
        else:
            pytest.fail("".join(log))
        yield "http://" + log[-1].split("http://")[1].split()[0]
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode in (0, -15)


def post(url: str, body: bytes) -> tuple[int, Any]:
    request = urllib.request.Request(f"{url}/intent", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_the_service_answers_with_a_result(service: str) -> None:
    code, result = post(service, json.dumps({"text": "please freeze my card"}).encode())
    assert code == 200
    assert result["graph"].startswith("support@")
    assert result["trace"][0]["stage"] == "first"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"text": " "}', "text is empty"),
        (b'{"text": "a\\u0000b"}', "NUL"),
        (b'{"text": "\\ud800"}', "not valid Unicode"),
        (b'{"text": 7}', "string"),
        (b"{}", "required"),
        (b"not json", "JSON"),
        (b'{"text": "' + b"a" * 1_000_001 + b'"}', "at most 1000000"),
    ],
)
def test_the_service_refuses_what_cannot_be_asked(service: str, body: bytes, reason: str) -> None:
    code, answer = post(service, body)
    assert code == 422
    assert reason in json.dumps(answer)


def test_the_plan_of_the_page_is_what_the_command_prints(root: Path) -> None:
    from cascade import lab
    from cascade.lab.planning.verdict import amount, verdict

    page = " ".join((root / "docs/plan.md").read_text(encoding="utf-8").split())
    found = lab.plan(assumptions=root / "examples/plan.yaml")
    assert all(sentence in page for sentence in verdict(found)[:3])
    for swing in found.swings:
        row = page[page.index(f"{swing.name} ") :].partition(swing.name)[2]
        assert f" {amount(swing.low_usd)} {amount(swing.high_usd)} " in row
