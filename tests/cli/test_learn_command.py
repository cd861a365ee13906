"""`cascade learn` as it is typed: whole or absent after Ctrl-C, kill −9 and a full disk."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from desk_rows import example, many
from without import cascade_without

pytest.importorskip("llama_cpp", reason="needs the extra local")
COMMAND = [sys.executable, "-m", "cascade.cli.main"]
OUT, GRAPH = Path("experts") / "desk.gguf", Path("graphs") / "desk.yaml"


def cascade(folder: Path, *arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=folder, capture_output=True, text=True, check=False, timeout=300,
        env=os.environ | {"COLUMNS": "200"}, **options,  # type: ignore[call-overload]
    )  # fmt: skip


def start(folder: Path, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for_vectors(folder: Path, process: subprocess.Popen[str]) -> None:
    """Return as soon as a first chunk of vectors is kept."""
    while process.poll() is None:
        if list(folder.glob("experts/.*.learning/vectors-*.npz")):
            return
        time.sleep(0.02)
    pytest.fail(f"it ended too early: {process.communicate()}")


def test_two_labels_are_learned_and_the_next_command_answers(tmp_path: Path) -> None:
    example(tmp_path, labels=2)
    made = cascade(tmp_path, "learn", "desk.csv")
    assert made.returncode == 0, made.stderr
    assert "50 rows, 2 labels" in made.stderr
    for title in ("expert", "accuracy", "answers", "confidence", "promise", "card", "graph", "next"):
        assert re.search(f"^{title} ", made.stdout, re.MULTILINE), made.stdout
    command = re.search(r"^next +cascade (.*)$", made.stdout, re.MULTILINE)
    assert command is not None
    ran = subprocess.run(
        ["bash", "-c", f"{' '.join(COMMAND)} {command[1]} --local-only"],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert {"haiku", "confident"} < set(ran.stdout.split())
    assert {"password", "email"} & set(ran.stdout.split())
    checked = cascade(tmp_path, "check", GRAPH)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.slow
def test_json_has_the_card_and_nothing_else_on_standard_output(tmp_path: Path) -> None:
    example(tmp_path, labels=2)
    made = cascade(tmp_path, "learn", "desk.csv", "--json", "--out", "mine/x.gguf", "--graph-out", "y.yaml")
    assert made.returncode == 0, made.stderr
    told = json.loads(made.stdout)
    assert (told["expert"], told["graph"], told["certified"]) == ("mine/x.gguf", "y.yaml", False)
    assert told["card"]["task"] == "x"
    assert told["card"] == json.loads((tmp_path / "mine" / "x.json").read_text())
    assert 'path: "mine/x.gguf"' in (tmp_path / "y.yaml").read_text()
    assert cascade(tmp_path, "check", "y.yaml").returncode == 0


def test_a_file_that_does_not_do_is_an_error_with_status_1(tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text("text,label\n" + "".join(f"text number {n},same\n" for n in range(9)))
    refused = cascade(tmp_path, "learn", "one.csv")
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: ")
    assert "Traceback" not in refused.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["one.csv"]


@pytest.mark.slow
def test_ctrl_c_before_anything_is_usable_says_how_to_go_on(tmp_path: Path) -> None:
    many(tmp_path, 6000, "desk.csv")
    process = start(tmp_path, "learn", "desk.csv")
    wait_for_vectors(tmp_path, process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "stopping with the best so far" in errors
    assert "--resume goes on" in errors
    assert not (tmp_path / OUT).exists()
    assert not (tmp_path / GRAPH).exists()


@pytest.mark.slow
def test_kill_9_leaves_nothing_half_written_and_resume_goes_on(tmp_path: Path) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    for folder in (killed, whole):
        folder.mkdir()
        many(folder, 2000, "desk.csv")
    (killed / "experts").mkdir()
    (killed / OUT).write_bytes(b"the old expert")
    process = start(killed, "learn", "desk.csv")
    wait_for_vectors(killed, process)
    process.kill()
    process.communicate()
    assert (killed / OUT).read_bytes() == b"the old expert"
    kept = {path: path.stat().st_mtime_ns for path in killed.glob("experts/.*.learning/vectors-*.npz")}
    assert kept
    second = start(killed, "learn", "desk.csv", "--resume")
    while second.poll() is None and len(list(killed.glob("experts/.*.learning/vectors-*.npz"))) <= len(kept):
        time.sleep(0.02)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept  # not made again
    second.kill()
    second.communicate()
    third = cascade(killed, "learn", "desk.csv", "--resume")
    assert third.returncode == 0, third.stderr
    assert sorted(path.name for path in (killed / "experts").iterdir()) == ["desk.gguf", "desk.json"]
    assert cascade(whole, "learn", "desk.csv").returncode == 0
    assert (killed / OUT).read_bytes() == (whole / OUT).read_bytes()


@pytest.mark.slow
def test_a_full_disk_is_a_clear_error_and_the_old_expert_stays(tmp_path: Path) -> None:
    example(tmp_path, labels=2)
    (tmp_path / "experts").mkdir()
    (tmp_path / OUT).write_bytes(b"the old expert")

    def small_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8_000_000, 8_000_000))

    failed = cascade(tmp_path, "learn", "desk.csv", preexec_fn=small_disk)
    assert failed.returncode == 1
    assert "File too large" in failed.stderr
    assert "nothing half-written is left" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert (tmp_path / OUT).read_bytes() == b"the old expert"
    assert not (tmp_path / GRAPH).exists()
    assert [path.name for path in (tmp_path / "experts").iterdir() if not path.name.startswith(".")] == [
        "desk.gguf"
    ]
    again = cascade(tmp_path, "learn", "desk.csv", "--resume")
    assert again.returncode == 0, again.stderr
    assert (tmp_path / OUT).stat().st_size > 8_000_000


def test_the_extra_is_named_where_it_is_missing(tmp_path: Path) -> None:
    example(tmp_path, labels=2)
    refused = cascade_without(["scipy"], tmp_path, "learn", "desk.csv")
    assert refused.returncode == 1
    assert refused.stderr == "error: cascade learn needs scipy; pip install 'cascade-moe[learn]'\n"
