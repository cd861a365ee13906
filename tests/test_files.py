"""A file is replaced whole or not at all."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from cascade.files import replace_file


def test_a_file_and_its_folder_are_made_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.json"
    replace_file(path, b"one")
    replace_file(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(path.parent.iterdir()) == [path]


def test_what_cannot_be_written_leaves_the_old_file_and_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with pytest.raises(FileExistsError):
        replace_file(path / "below", b"new")
    with pytest.raises(TypeError):
        replace_file(path, "no bytes")  # type: ignore[arg-type]
    assert [each.read_bytes() for each in tmp_path.iterdir()] == [b"old"]


def test_a_link_still_points_to_the_file_that_was_replaced(tmp_path: Path) -> None:
    real, link = tmp_path / "real" / "policy.json", tmp_path / "policy.json"
    replace_file(real, b"old")
    link.symlink_to(real)
    replace_file(link, b"new")
    assert link.is_symlink()
    assert real.read_bytes() == b"new"


def test_a_pipe_is_written_to_and_stays_one(tmp_path: Path) -> None:
    pipe, found = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: found.append(pipe.read_bytes()))
    reader.start()
    replace_file(pipe, b"data")
    reader.join()
    assert found == [b"data"]
    assert pipe.is_fifo()


def test_writers_at_once_never_show_a_part(tmp_path: Path) -> None:
    path = tmp_path / "shared"
    contents = [bytes([65 + index]) * 200_000 for index in range(4)]
    writers = [
        threading.Thread(target=lambda data=data: [replace_file(path, data) for _ in range(5)])
        for data in contents
    ]
    for writer in writers:
        writer.start()
    seen: set[bytes] = set()
    while any(writer.is_alive() for writer in writers):
        if path.exists():
            seen.add(path.read_bytes())
    assert seen | {path.read_bytes()} <= set(contents)
    assert list(tmp_path.iterdir()) == [path]
