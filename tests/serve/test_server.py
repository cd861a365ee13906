"""The OpenAI-compatible server, asked by the real openai SDK over a real socket."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from loopback import Gate, Loopback, chat
from scripting import checked, scripted, write
from serving import serving

from cascade.serve.openai.keys import add_key
from cascade.trace import TraceStore

MODELS = {
    "small": scripted("no idea", confidence=0.3),
    "large": scripted("certainly", confidence=0.9, price={"input": 1, "output": 5}, local=False),
}
STAGES = [checked("first", "small"), checked("last", "large")]
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    graph = write(tmp_path_factory.mktemp("server"), MODELS, STAGES)
    with serving(graph) as (_, url):
        yield url


@pytest.fixture
def client(server: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_graphs_are_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["test"]
    assert client.models.retrieve("test").owned_by == "cascade"
    with pytest.raises(openai.NotFoundError, match="known: test"):
        client.models.retrieve("other")


def test_a_completion_is_a_run(client: openai.OpenAI, server: str) -> None:
    done = client.chat.completions.create(model="test", messages=[{"role": "user", "content": "Is it?"}])
    assert done.choices[0].message.content == "certainly"
    assert done.choices[0].finish_reason == "stop"
    assert done.usage is not None
    assert (done.usage.prompt_tokens, done.usage.completion_tokens) == (4, 3)  # both tiers' calls
    told: Any = (done.model_extra or {})["cascade"]
    assert [step["rule"] for step in told["steps"]] == ["below_threshold", "confident"]
    run = httpx2.get(f"{server}/v1/runs/{told['run']}").json()
    assert (run["text"], run["request"]["text"]) == ("certainly", "Is it?")


def test_a_stream_gives_the_accepted_answer_only(client: openai.OpenAI) -> None:
    pieces = list(
        client.chat.completions.create(
            model="test",
            messages=[{"role": "user", "content": "Is it?"}],
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    text = "".join(p.choices[0].delta.content or "" for p in pieces if p.choices)
    assert text == "certainly"
    assert [p.choices[0].finish_reason for p in pieces if p.choices][-1] == "stop"
    assert pieces[-1].usage is not None
    assert pieces[-1].usage.total_tokens == 7


def test_several_choices_are_several_runs(client: openai.OpenAI) -> None:
    done = client.chat.completions.create(model="test", n=3, messages=[{"role": "user", "content": "Is it?"}])
    assert [choice.message.content for choice in done.choices] == ["certainly"] * 3
    runs: Any = (done.model_extra or {})["cascade"]["runs"]
    assert len({run["run"] for run in runs}) == 3


def test_log_probabilities_are_the_answers_own(client: openai.OpenAI) -> None:
    done = client.chat.completions.create(
        model="test", logprobs=True, messages=[{"role": "user", "content": "Is it?"}]
    )
    assert done.choices[0].logprobs is not None
    [token] = done.choices[0].logprobs.content or []
    assert (token.token, token.logprob) == ("certainly", pytest.approx(-0.105, abs=1e-3))


def test_a_local_only_request_that_nobody_can_answer_is_refused_in_words(client: openai.OpenAI) -> None:
    done = client.chat.completions.create(
        model="test",
        messages=[{"role": "user", "content": "Is it?"}],
        extra_body={"cascade": {"local_only": True}},
    )
    message = done.choices[0].message
    assert message.content is None
    assert "rule local_only" in (message.refusal or "")


def test_the_responses_api_answers_and_streams(client: openai.OpenAI) -> None:
    done = client.responses.create(model="test", input="Is it?", instructions="Be brief.")
    assert (done.output_text, done.status) == ("certainly", "completed")
    assert done.usage is not None
    assert done.usage.total_tokens > 0
    with client.responses.stream(model="test", input="Is it?") as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert ("".join(deltas), final.output_text) == ("certainly", "certainly")


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ("{", 400, "body"),
        ("[]", 400, "body"),
        ('{"model": "test", "messages": []}', 400, "messages"),
        ('{"model": "test", "messages": [{"role": "user", "content": ""}]}', 400, "empty"),
        ('{"model": "test", "messages": [{"role": "king", "content": "x"}]}', 400, "role"),
        ('{"model": "test", "messages": [{"role": "user", "content": "x"}], "n": 0}', 400, "n"),
        ('{"model": "test", "messages": [{"role": "user", "content": "x"}], "nn": 1}', 400, "nn"),
        ('{"model": "nope", "messages": [{"role": "user", "content": "x"}]}', 404, "nope"),
        (
            '{"model": "test", "messages": [{"role": "user", "content": [{"type": "image_url"}]}]}',
            400,
            "messages.0.content.0.type: Input should be 'text'",
        ),
        (
            '{"model": "test", "messages": [{"role": "user", "content": "x"}], "local_only": true}',
            400,
            "local_only: unknown field; remove it",
        ),
        (
            '{"model": "test", "messages": [{"role": "user", "content": "x"}], "stream": true, "n": 2}',
            400,
            "n is more than 1",
        ),
        ('{"model": "test", "messages": [{"role": "user", "content": "a\\u0000b"}]}', 400, "NUL"),
    ],
)
def test_bad_requests_are_refused_in_openais_shape(server: str, body: str, status: int, said: str) -> None:
    headers = {"Content-Type": "application/json"}
    response = httpx2.post(f"{server}/v1/chat/completions", content=body, headers=headers)
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert said in error["message"]


def test_a_body_that_is_no_json_or_too_long_is_refused(server: str) -> None:
    url = f"{server}/v1/chat/completions"
    assert httpx2.post(url, data={"model": "test"}).status_code == 415
    headers = {"Content-Type": "application/json"}
    assert httpx2.post(url, content=b" " * (9 << 20), headers=headers).status_code == 413


def test_metrics_health_viewer_and_unknown_paths(server: str, client: openai.OpenAI) -> None:
    client.chat.completions.create(model="test", messages=[{"role": "user", "content": "Is it?"}])
    assert httpx2.get(f"{server}/healthz").json() == {"status": "ok", "graphs": ["test"]}
    metrics = httpx2.get(f"{server}/metrics").text
    assert 'cascade_decisions_total{action="accept",graph="test",rule="confident",stage="last"}' in metrics
    assert "<h1>Runs</h1>" in httpx2.get(f"{server}/").text
    with pytest.raises(openai.NotFoundError, match="POST /v1/embeddings is not offered"):
        client.embeddings.create(model="test", input="x")
    assert "access-control-allow-origin" not in httpx2.get(f"{server}/v1/models").headers


def test_keys_decide_who_asks_what(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    _, shop = add_key(keys, name="shop", graphs=("test",), per_minute=2)
    _, other = add_key(keys, name="other", graphs=("elsewhere",))
    _, admin = add_key(keys, name="boss", admin=True)
    body = {"model": "test", "messages": [{"role": "user", "content": "Is it?"}]}
    with serving(write(tmp_path, MODELS, STAGES), "--keys", str(keys)) as (_, url):

        def ask(secret: str | None) -> httpx2.Response:
            headers = {} if secret is None else {"Authorization": f"Bearer {secret}"}
            return httpx2.post(f"{url}/v1/chat/completions", json=body, headers=headers)

        assert (ask(None).status_code, ask("wrong").status_code) == (401, 401)
        assert ask(other).status_code == 404
        statuses = [ask(shop) for _ in range(3)]
        assert [answer.status_code for answer in statuses] == [200, 200, 429]
        assert int(statuses[-1].headers["retry-after"]) >= 1
        for path in ("/", "/v1/runs", "/metrics"):
            assert httpx2.get(f"{url}{path}").status_code == 401
            assert httpx2.get(f"{url}{path}", auth=("x", other)).status_code == 403
            assert httpx2.get(f"{url}{path}", auth=("x", admin)).status_code == 200
        run = statuses[0].json()["cascade"]["run"]
    with TraceStore(str(tmp_path / "traces.db"), create=False) as store:
        assert store.get(run).request.account == "shop"


BODY = {"model": "test", "messages": [{"role": "user", "content": "Is it?"}]}


def gated(folder: Path, url: str) -> Path:
    """A graph whose first stage asks the server at `url`."""
    far = {"kind": "openai", "model": "m", "url": url, "key_env": None, "local": True, "timeout": 120}
    stages = [checked("first", "far"), {"name": "last", "ask": ["small"]}]
    return write(folder, {"far": far, "small": scripted("done")}, stages)


def test_too_many_requests_are_told_to_wait(tmp_path: Path) -> None:
    with Loopback() as far:
        gate = Gate(far, chat("yes", logprobs=[("yes", -0.01)]))
        with serving(gated(tmp_path, far.url), "--in-flight", "1", "--queue", "1") as (_, url):

            async def flood() -> list[int]:
                async with httpx2.AsyncClient(timeout=120) as http:
                    asking = [http.post(f"{url}/v1/chat/completions", json=BODY) for _ in range(4)]
                    answers = []
                    for each in asyncio.as_completed(asking):
                        answers.append((await each).status_code)
                        if answers == [429, 429]:
                            gate.open.set()
                    return answers

            assert asyncio.run(flood()) == [429, 429, 200, 200]


def terminated(process: subprocess.Popen[str], url: str, gate: Gate, stops: bool) -> httpx2.Response:
    """Ask, send SIGTERM while the first stage is asking, and return the answer of a process that ended well.

    With `stops` the first stage answers only after the server has told the runs to stop.
    """
    with ThreadPoolExecutor() as pool:
        asking = pool.submit(httpx2.post, f"{url}/v1/chat/completions", json=BODY, timeout=120)
        assert gate.asked.wait(60)
        os.kill(process.pid, signal.SIGTERM)
        if stops:
            assert process.stderr
            assert "1 requests at work" in process.stderr.readline()
        gate.open.set()
        answer = asking.result()
    assert process.wait(60) == 0
    return answer


def test_sigterm_lets_requests_finish(tmp_path: Path) -> None:
    with Loopback() as far:
        gate = Gate(far, chat("no", logprobs=[("no", -3.0)]))
        with serving(gated(tmp_path, far.url), "--drain", "120") as (process, url):
            answer = terminated(process, url, gate, stops=False)
    assert not (tmp_path / "traces.db-wal").exists()  # the store was closed
    assert answer.json()["choices"][0]["message"]["content"] == "done"


@pytest.mark.slow
def test_a_run_that_sigterm_stops_between_two_stages_goes_on_in_another_process(tmp_path: Path) -> None:
    with Loopback() as far:
        gate = Gate(far, chat("no", logprobs=[("no", -3.0)]))
        graph = gated(tmp_path, far.url)
        with serving(graph, "--drain", "20") as (process, url):
            answer = terminated(process, url, gate, stops=True)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (503, "draining")
    run = re.search(r"cascade resume (\S+)`", error["message"])
    assert run, error
    command = [sys.executable, "-m", "cascade.cli.main", "resume", run[1], "--graph", str(graph), "--json"]
    resumed = subprocess.run(
        [*command, "--trace-db", str(tmp_path / "traces.db")], capture_output=True, text=True, timeout=120
    )
    assert resumed.returncode == 0, resumed.stderr
    row = json.loads(resumed.stdout)
    assert (row["run"], row["status"], row["text"]) == (run[1], "accepted", "done")


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_ends_its_run(tmp_path: Path, stream: bool) -> None:
    with Loopback() as far:
        gate = Gate(far, chat("never"))

        async def leave(url: str) -> None:
            async with httpx2.AsyncClient(timeout=60) as http:
                asking = asyncio.create_task(
                    http.post(f"{url}/v1/chat/completions", json=BODY | {"stream": stream})
                )
                assert await asyncio.to_thread(gate.asked.wait, 60)
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)

        with serving(gated(tmp_path, far.url), "--in-flight", "1", "--queue", "0") as (_, url):
            asyncio.run(leave(url))
            counted = 'cascade_runs_total{graph="test",rule="cancelled",status="cancelled",tier=""} 1.0'
            deadline = time.monotonic() + 60
            while counted not in (text := httpx2.get(f"{url}/metrics").text):
                assert time.monotonic() < deadline, text
                time.sleep(0.05)
            assert 'cascade_runs_active{graph="test"} 0.0' in text
            gate.open.set()
    with TraceStore(str(tmp_path / "traces.db"), create=False) as store:
        [row] = store.runs()
        assert (row.status, store.get(row.run).trace[0].calls[0].error) == ("cancelled", "cancelled")


def test_a_server_for_others_needs_keys(tmp_path: Path) -> None:
    graph = write(tmp_path, MODELS, STAGES)
    command = [sys.executable, "-m", "cascade.cli.main", "serve", str(graph), "--host", "0.0.0.0"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "give --keys FILE, or --insecure" in done.stderr


def test_tools_and_schemas_are_in_the_description(server: str) -> None:
    described = httpx2.get(f"{server}/openapi.json").json()
    body = described["paths"]["/v1/chat/completions"]["post"]["requestBody"]
    assert "tools" in body["content"]["application/json"]["schema"]["properties"]
    assert json.dumps(described)


def test_a_keys_day_budget_is_kept(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    _, poor = add_key(keys, name="poor", day_usd=0.00001)
    _, rich = add_key(keys, name="rich", day_usd=1.0)
    body = {"model": "test", "messages": [{"role": "user", "content": "Is it?"}]}
    with serving(write(tmp_path, MODELS, STAGES), "--keys", str(keys)) as (_, url):

        def ask(secret: str, **more: object) -> httpx2.Response:
            headers = {"Authorization": f"Bearer {secret}"}
            return httpx2.post(f"{url}/v1/chat/completions", json=body | more, headers=headers)

        refused = ask(poor)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "insufficient_quota")
        assert "insufficient_quota" in ask(poor, stream=True).text
        assert ask(rich).status_code == 200
        with TraceStore(str(tmp_path / "traces.db"), create=False) as store:
            before = len(store.runs())
            with (
                openai.OpenAI(base_url=f"{url}/v1", api_key=poor) as client,  # it repeats other 429s twice
                pytest.raises(openai.RateLimitError, match="account:poor"),
            ):
                client.chat.completions.create(model="test", messages=[{"role": "user", "content": "Is it?"}])
            assert len(store.runs()) == before + 1


def test_a_tool_is_called_and_its_result_answered(tmp_path: Path) -> None:
    call = {"text": "", "calls": [{"name": "weather", "arguments": '{"city": "Bonn"}'}]}
    models = {"large": {**scripted("sunny", confidence=0.9), "replies": {"How is Bonn?": call}}}
    with (
        serving(write(tmp_path, models, [{"name": "only", "ask": ["large"]}])) as (_, url),
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        said: list[Any] = [{"role": "user", "content": "How is Bonn?"}]
        tools: list[Any] = [TOOL]
        first = client.chat.completions.create(model="test", messages=said, tools=tools)
        assert first.choices[0].finish_reason == "tool_calls"
        [wanted] = first.choices[0].message.tool_calls or []
        assert wanted.type == "function"
        assert json.loads(wanted.function.arguments) == {"city": "Bonn"}
        pieces = list(client.chat.completions.create(model="test", messages=said, tools=tools, stream=True))
        streamed = [c for p in pieces for c in (p.choices[0].delta.tool_calls or [])]
        assert streamed[0].function is not None
        assert streamed[0].function.name == "weather"
        response = client.responses.create(
            model="test",
            input="How is Bonn?",
            tools=[{"type": "function", "strict": True, **TOOL["function"]}],
        )
        assert [item.type for item in response.output] == ["function_call"]


def test_an_answer_that_breaks_its_schema_is_refused(tmp_path: Path) -> None:
    models = {"large": scripted('{"city": 3}', confidence=0.9)}
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    form: Any = {"type": "json_schema", "json_schema": {"name": "place", "schema": schema}}
    with (
        serving(write(tmp_path, models, [{"name": "only", "ask": ["large"]}])) as (_, url),
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        done = client.chat.completions.create(
            model="test", messages=[{"role": "user", "content": "Where?"}], response_format=form
        )
    assert done.choices[0].message.content is None
    assert "rule invalid" in (done.choices[0].message.refusal or "")
