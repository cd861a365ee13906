"""Worker processes never outlive their parent, survive nothing twice, and keep llama.cpp out of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from gguf_maker import make_gguf

HEAD = """
import asyncio, os, sys, time
from pathlib import Path
from cascade.models.llamacpp import LlamaCppSettings
from cascade.models import build_model
from cascade.models.base import Prompt
from cascade.models.llamacpp.supervisor import supervisor
path = Path(sys.argv[1])
config = LlamaCppSettings(kind="llamacpp", path=path.name, isolate="process", n_ctx=8192, max_tokens=8000)
short = LlamaCppSettings(kind="llamacpp", path=path.name, isolate="process", max_tokens=3)
nano, brief = build_model("nano", config, path.parent), build_model("brief", short, path.parent)

async def talk():
    begun = asyncio.Event()
    task = asyncio.create_task(nano.ask(Prompt("hi"), lambda piece: begun.set()))
    await begun.wait()
    return task
"""


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_gguf(tmp_path_factory.mktemp("gguf") / "endless.gguf", says="on and", ends=False, n_ctx=8192)


def run(code: str, path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", HEAD + code, str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def ends(pid: int) -> bool:
    """Whether the process ends within half a minute (a zombie of this container's init counts as ended)."""
    status = Path(f"/proc/{pid}/stat")
    for _ in range(3000):
        try:
            if status.read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.01)
    return False


def test_the_parent_never_imports_llama_cpp(endless: Path) -> None:
    done = run(
        "print(asyncio.run(brief.ask(Prompt('hi'))).text)\n"
        "print({'llama_cpp', 'numpy', 'langgraph', 'multiprocessing'} & set(sys.modules))\n",
        endless,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "on andon\nset()\n", "")


def test_a_process_exits_cleanly_with_a_call_in_flight(endless: Path) -> None:
    done = run(
        "from cascade.run._loop import BackgroundLoop\n"
        "task = BackgroundLoop().run(talk())\n"
        "print(*supervisor().processes().values())\n",
        endless,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert not Path(f"/proc/{int(done.stdout)}").exists()  # reaped by its parent


@pytest.mark.parametrize("copies", [0, 1])
def test_no_worker_outlives_a_parent_that_is_killed(endless: Path, copies: int) -> None:
    # A forked copy of the parent holds the connection open, so that its end alone would not be noticed.
    code = (
        "async def main():\n"
        "    task = await talk()\n"
        f"    copy = os.fork() if {copies} else 0\n"
        f"    if {copies} and not copy:\n        time.sleep(60)\n        os._exit(0)\n"
        "    print(copy, *supervisor().processes().values(), flush=True)\n"
        "    await task\n"
        "asyncio.run(main())\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", HEAD + code, str(endless)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    copy, child = map(int, parent.stdout.readline().split())
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    try:
        assert ends(child)
    finally:
        parent.stdout.close()
        if copy:
            os.kill(copy, signal.SIGKILL)


def test_a_worker_ignores_the_signals_that_ask_its_parent_to_end(endless: Path) -> None:
    done = run(
        "async def main():\n"
        "    first = await brief.ask(Prompt('hi'))\n"
        "    for pid in supervisor().processes().values():\n"
        "        os.kill(pid, 2), os.kill(pid, 15)\n"
        "    print((await brief.ask(Prompt('hi'))).meta['restarts'])\n"
        "asyncio.run(main())\n",
        endless,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")


def test_a_forked_copy_of_the_parent_has_a_worker_of_its_own_and_harms_nothing(endless: Path) -> None:
    done = run(
        "print(asyncio.run(brief.ask(Prompt('hi'))).text, flush=True)\n"
        "copy = os.fork()\n"
        "if copy == 0:\n"
        "    print(asyncio.run(brief.ask(Prompt('hi'))).text, flush=True)\n"
        "    sys.exit(0)\n"
        "os.waitpid(copy, 0)\n"
        "reply = asyncio.run(brief.ask(Prompt('hi')))\n"
        "print(reply.text, reply.meta['restarts'])\n",
        endless,
    )
    lines = done.stdout.splitlines()
    assert lines == ["on andon", "on andon", "on andon 0"], done.stderr


def test_the_users_main_module_runs_once(tmp_path: Path, endless: Path) -> None:
    # `multiprocessing` would run a script without a __main__ guard again in every worker.
    script = tmp_path / "script.py"
    script.write_text(HEAD + "print(asyncio.run(brief.ask(Prompt('hi'))).text)\n")
    done = subprocess.run(
        [sys.executable, str(script), str(endless)], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("on andon\n", "")
