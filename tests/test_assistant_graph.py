"""graphs/assistant.yaml end to end: models from a loopback hub, an opus behind a loopback server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from gguf_maker import CHATML, make_gguf
from loopback import Loopback, stream

ROOT = Path(__file__).parents[1]
GRAPH = ROOT / "graphs" / "assistant.yaml"
SMALL, MIDDLE = "Qwen/Qwen2.5-0.5B-Instruct-GGUF", "Qwen/Qwen2.5-1.5B-Instruct-GGUF"


class Hub(BaseHTTPRequestHandler):
    """The part of the hub that a download talks to; `files` is repository → content."""

    files: dict[str, bytes]

    def do_HEAD(self) -> None:
        self.answer(b"")

    def do_GET(self) -> None:
        self.answer(self.files.get(self.repository(), b""))

    def repository(self) -> str:
        return "/".join(self.path.split("/")[1:3])

    def answer(self, body: bytes) -> None:
        content = self.files.get(self.repository(), b"")  # the hub's library asks about itself, too
        self.send_response(200 if content else 404)
        self.send_header("ETag", f'"{sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", sha256(content).hexdigest()[:40])
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A model that is sure of each word it says, and one of random weights that is sure of nothing."""
    folder = tmp_path_factory.mktemp("gguf")
    sure = make_gguf(folder / "sure.gguf", chat_template=CHATML, says="hello there")
    lost = make_gguf(
        folder / "lost.gguf", chat_template=CHATML, n_ctx=512, seed=3, weights={"output.weight": 0.0}
    )
    return {"sure": sure.read_bytes(), "lost": lost.read_bytes()}


@pytest.fixture
def hub() -> Iterator[tuple[str, dict[str, bytes]]]:
    class Own(Hub):
        files: dict[str, bytes] = {}  # noqa: RUF012 - set by each test

    with ThreadingHTTPServer(("127.0.0.1", 0), Own) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", Own.files
        server.shutdown()


def ask(folder: Path, hub: str, *args: str, **env: str) -> tuple[int, dict[str, Any], str]:
    """Run the graph in a process of its own: the hub library reads its settings when it is imported."""
    settings = {
        "HF_HOME": str(folder / "hub"),
        "HF_ENDPOINT": hub,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        **env,
    }
    command = [sys.executable, "-m", "cascade.cli.main", "run", str(GRAPH), "How are you?", "--json", *args]
    done = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, timeout=300)
    assert "Traceback" not in done.stderr
    return done.returncode, json.loads(done.stdout) if done.stdout else {}, done.stderr


def test_a_sure_haiku_answers_and_nobody_else_is_asked(
    tmp_path: Path, hub: tuple[str, dict[str, bytes]], files: dict[str, bytes]
) -> None:
    hub[1].update({SMALL: files["sure"], MIDDLE: files["lost"]})
    code, row, errors = ask(tmp_path, hub[0])
    assert code == 0, errors
    assert (row["status"], row["tier"], row["rule"]) == ("accepted", "haiku", "confident")
    assert row["text"].strip() == "hello there"


def test_an_unsure_haiku_climbs_to_a_sure_sonnet(
    tmp_path: Path, hub: tuple[str, dict[str, bytes]], files: dict[str, bytes]
) -> None:
    hub[1].update({SMALL: files["lost"], MIDDLE: files["sure"]})
    code, row, errors = ask(tmp_path, hub[0])
    assert code == 0, errors
    assert (row["status"], row["tier"], row["stage"]) == ("accepted", "sonnet", "second")


def test_two_unsure_models_leave_it_to_opus_or_without_a_key_to_nobody(
    tmp_path: Path, hub: tuple[str, dict[str, bytes]], files: dict[str, bytes]
) -> None:
    hub[1].update({SMALL: files["lost"], MIDDLE: files["lost"]})
    with Loopback() as server:
        server.answers = [stream(["I am well, ", "thank you."], usage=(20, 8))]
        code, row, errors = ask(tmp_path, hub[0], OPENAI_API_KEY="k", OPENAI_BASE_URL=server.url)
    assert code == 0, errors
    assert (row["status"], row["tier"], row["text"]) == ("accepted", "opus", "I am well, thank you.")
    assert row["cost_usd"] > 0
    assert len(server.requests) == 1
    # The second time the models come from the cache; the hub is not asked.
    code, row, errors = ask(tmp_path, "http://127.0.0.1:9", HF_HUB_OFFLINE="1")
    assert code == 3, errors
    assert (row["status"], row["rule"], row["text"]) == ("abstained", "unavailable", None)


def test_offline_without_the_files_the_run_says_how_to_get_them(tmp_path: Path) -> None:
    code, row, errors = ask(tmp_path, "http://127.0.0.1:9", HF_HUB_OFFLINE="1")
    assert code == 5, errors
    assert row["status"] == "abstained"
    done = subprocess.run(
        [sys.executable, "-m", "cascade.cli.main", "trace", "explain", row["run"]],
        capture_output=True,
        text=True,
        timeout=60,
    )
    said = " ".join(done.stdout.split())
    assert "HF_HUB_OFFLINE" in said
    assert "qwen2.5-0.5b-instruct-q4_k_m.gguf" in said
