"""`cascade ui`: a real server in a process of its own."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from serving import running
from typer.testing import CliRunner

from cascade.cli.main import app
from cascade.errors import CascadeError, ConfigError
from cascade.records import Request, Result
from cascade.trace import TraceStore


def test_it_serves_the_pages_until_it_is_interrupted(tmp_path: Path, root: Path) -> None:
    database = tmp_path / "runs.db"
    with TraceStore(str(database)) as store:
        store.write(
            Result(run="01AA", graph="support", status="accepted", text="yes", request=Request(text="Where?"))
        )
    graph = str(root / "graphs" / "support.yaml")
    with running(graph, "--trace-db", str(database), "--no-open") as (process, url):
        assert url.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(url) as answer:
            assert "Where?" in answer.read().decode()
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(urllib.request.Request(url, headers={"Host": "evil.example"}))
        assert refused.value.code == 403
        refused.value.close()
        data = urllib.parse.urlencode({"grade": "right"}).encode()
        with urllib.request.urlopen(f"{url}runs/01AA/grade", data=data) as answer:
            assert answer.url == f"{url}runs/01AA#grade"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
        assert (process.returncode, out.strip(), err) == (0, "", "")
    with TraceStore(str(database)) as store:
        assert store.grades("01AA")[0].correct


def test_it_opens_a_browser_only_where_there_is_a_display(tmp_path: Path) -> None:
    mark, browser = tmp_path / "opened", tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {mark}\n')
    browser.chmod(0o755)
    with running(BROWSER=f"{browser} %s", DISPLAY="", WAYLAND_DISPLAY="") as (_, url):
        urllib.request.urlopen(url).close()
        assert not mark.exists()
    with running(BROWSER=f"{browser} %s", DISPLAY=":0") as (_, url):
        urllib.request.urlopen(url).close()
        assert mark.read_text().strip() == url
    with running("--no-open", BROWSER=f"{browser} %s", DISPLAY=":0") as (_, other):
        urllib.request.urlopen(other).close()
        assert mark.read_text().strip() == url


def test_a_port_in_use_and_an_unknown_host_are_errors_with_a_fix() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        with pytest.raises(
            CascadeError, match=f"port {port}: Address already in use; give another --host or --port"
        ):
            CliRunner().invoke(app, ["ui", "--port", port, "--no-open"], catch_exceptions=False)
    with pytest.raises(CascadeError, match=r"cannot listen at 203\.0\.113\.9 port 0"):
        CliRunner().invoke(app, ["ui", "--port", "0", "--host", "203.0.113.9"], catch_exceptions=False)


def test_a_wrong_graph_file_is_reported_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "graph.yaml").write_text("name: x\n")
    with pytest.raises(ConfigError, match="models"):
        CliRunner().invoke(app, ["ui", str(tmp_path / "graph.yaml")], catch_exceptions=False)


def test_without_its_packages_the_command_to_install_them_is_named() -> None:
    code = (
        "import sys; sys.modules['fastapi'] = None; sys.argv = ['cascade', 'ui', '--no-open']\n"
        "from cascade.cli.main import main\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "error: cascade ui needs fastapi; pip install 'cascade-moe[serve]'\n"
