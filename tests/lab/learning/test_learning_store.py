"""What is kept for --resume: whole or missing, never stale, one call at a time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cascade.errors import RequestError
from cascade.lab.learning.store import Store


def test_what_was_kept_comes_back_under_the_same_key_only(tmp_path: Path) -> None:
    notes: list[str] = []
    out = tmp_path / "experts" / "a.gguf"
    store = Store(out, resume=False, note=notes.append)
    store.save("vectors", "data", 1, arrays={"x": np.arange(3)}, facts={"n": 1})
    store.close(keep=True)
    again = Store(out, resume=True, note=notes.append)
    kept = again.load("vectors", "data", 1)
    assert kept is not None
    assert (kept[0]["x"].tolist(), kept[1]) == ([0, 1, 2], {"n": 1})
    assert again.load("vectors", "data", 2) is None
    again.close(keep=False)
    assert not again.folder.exists()
    assert notes == []


def test_a_torn_file_counts_as_missing(tmp_path: Path) -> None:
    store = Store(tmp_path / "a.gguf", resume=False, note=print)
    store.save("fit", "k", arrays={"x": np.arange(100)})
    (path,) = store.folder.glob("fit-*")
    for data in (path.read_bytes()[:50], b"", b"PK\x03\x04 nonsense"):
        path.write_bytes(data)
        assert store.load("fit", "k") is None
    store.close(keep=False)


def test_without_resume_the_leavings_are_dropped_and_said(tmp_path: Path) -> None:
    notes: list[str] = []
    store = Store(tmp_path / "a.gguf", resume=False, note=notes.append)
    store.save("fit", "k", arrays={"x": np.arange(3)})
    store.close(keep=True)
    store = Store(tmp_path / "a.gguf", resume=False, note=notes.append)
    assert store.load("fit", "k") is None
    assert "--resume would go on" in notes[0]
    store.close(keep=False)
    Store(tmp_path / "a.gguf", resume=True, note=notes.append).close(keep=True)
    assert "nothing to go on with" in notes[1]
    assert list(tmp_path.iterdir()) == []


def test_a_second_call_for_the_same_expert_is_refused(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom cascade.lab.learning.store import Store\n"
        "store = Store(Path(sys.argv[1]), resume=False, note=print)\n"
        "print('locked', flush=True)\ntime.sleep(60)\n"
    )
    out = tmp_path / "a.gguf"
    other = subprocess.Popen([sys.executable, "-c", code, str(out)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(RequestError, match="another 'cascade learn' is making"):
            Store(out, resume=True, note=print)
    finally:
        other.kill()
        other.wait()
        other.stdout.close()
    Store(out, resume=True, note=print).close(keep=False)  # the lock ended with the process


def test_a_folder_that_cannot_be_made_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match="give an --out that can be written"):
        Store(tmp_path / "file" / "a.gguf", resume=False, note=print)
