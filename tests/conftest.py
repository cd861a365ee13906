"""Every test runs without a network beyond loopback, without keys, and with a trace store of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_socket
from hypothesis import settings
from postgres import Server, server

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("CASCADE_DATA", ROOT.parent / "shared" / "data"))

# The same examples every time, and no deadline: a busy machine is not a failure.
settings.register_profile("cascade", deadline=None, derandomize=True)
settings.load_profile("cascade")


def pytest_runtest_setup() -> None:
    pytest_socket.socket_allow_hosts(["127.0.0.1", "::1"], allow_unix_socket=True)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No keys, no tracing services, and traces in the test's own folder."""
    for name in list(os.environ):
        if name.startswith(("OPENAI_", "LANGSMITH_", "LANGCHAIN_", "HF_", "OTEL_", "CASCADE_TRACE_KEY")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("CASCADE_TRACE_DB", f"sqlite:///{tmp_path / 'traces.db'}")
    monkeypatch.setenv("NO_COLOR", "1")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A real PostgreSQL server; tests that need it are skipped where there is none."""
    with server() as running:
        yield running


@pytest.fixture
def data() -> Path:
    """The folder of the data sets; tests that need it are skipped where it is absent."""
    if not DATA.is_dir():
        pytest.skip(f"no data sets at {DATA}; set CASCADE_DATA")
    return DATA


@pytest.fixture
def root() -> Path:
    """The repository's top folder."""
    return ROOT
