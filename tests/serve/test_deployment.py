"""The deployment page: its application under uvicorn and gunicorn, its health check, and its unit file."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from gguf_maker import make_gguf
from scripting import write

from cascade import TraceStore

SERVERS = {
    "uvicorn": ["uvicorn", "service:app", "--workers", "2"],
    "gunicorn --preload": [
        *("gunicorn", "service:app", "--preload", "--workers", "2"),
        *("-k", "uvicorn_worker.UvicornWorker", "--graceful-timeout", "30"),
    ],
}


def blocks(root: Path, language: str) -> list[str]:
    page = (root / "docs" / "deployment.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def fetch(url: str, body: object = None) -> str:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return str(answer.read().decode())


def wait_until_healthy(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        try:
            fetch(f"{url}/healthz")
        except (urllib.error.URLError, OSError):
            assert process.poll() is None, "the server ended"
            time.sleep(0.1)
        else:
            return
    raise AssertionError("the server is not healthy after a minute")


@pytest.mark.slow
@pytest.mark.parametrize("name", list(SERVERS))
def test_workers_answer_store_and_stop(root: Path, tmp_path: Path, name: str) -> None:
    command = SERVERS[name]
    for module in {command[0], *({"uvicorn_worker"} if "gunicorn" in name else ())}:
        pytest.importorskip(module)
    make_gguf(tmp_path / "m.gguf", says="yes")
    graph = write(tmp_path, {"m": {"kind": "llamacpp", "path": "m.gguf"}}, [{"name": "only", "ask": ["m"]}])
    (tmp_path / "service.py").write_text(blocks(root, "python")[0])
    port = free_port()
    place = ["--bind", f"127.0.0.1:{port}"] if "gunicorn" in name else ["--port", str(port)]
    process = subprocess.Popen(
        [sys.executable, "-m", *command, *place],
        cwd=tmp_path,
        env=os.environ | {"GRAPH": str(graph), "PYTHONPATH": str(tmp_path)},
        start_new_session=True,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_healthy(url, process)
        body = {"model": "test", "messages": [{"role": "user", "content": "hello"}]}
        for _ in range(6):
            answer = json.loads(fetch(f"{url}/v1/chat/completions", body))
            assert answer["choices"][0]["message"]["content"] == "yes"
        check = re.search(r"HEALTHCHECK CMD (.*)", blocks(root, "dockerfile")[0])
        assert check is not None
        words = shlex.split(check[1].replace(":8000", f":{port}"))
        assert subprocess.run([sys.executable, *words[1:]], timeout=60).returncode == 0
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    with TraceStore(str(tmp_path / "traces.db"), create=False) as store:
        assert len(store.runs(limit=100)) >= 6 + 1  # the warm-up, too


def test_the_unit_file_is_one_that_systemd_takes(root: Path, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    unit = blocks(root, "ini")[0]
    program = Path(sys.executable)
    (tmp_path / "cascade.service").write_text(unit.replace("/opt/cascade/bin/cascade", str(program)))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(tmp_path / "cascade.service")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    own = [line for line in done.stderr.splitlines() if "cascade.service" in line]
    assert not own, own


def test_the_commands_of_the_page_have_the_options_that_it_gives_them(root: Path) -> None:
    page = (root / "docs" / "deployment.md").read_text()
    done = subprocess.run(
        [sys.executable, "-m", "cascade.cli.main", "serve", "--help"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    lines = [line for line in page.splitlines() if "cascade serve" in line or '"serve"' in line]
    used = {option for line in lines for option in re.findall(r"--[a-z-]+", line)}
    assert {"--host", "--port", "--keys", "--drain"} <= used
    assert all(option in done.stdout for option in used)
