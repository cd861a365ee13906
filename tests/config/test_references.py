"""What a graph refers to: files, bundled experts, the hub, label sets, and the fingerprint of a model."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Annotated

import pytest
from gguf_maker import make_gguf
from pydantic import TypeAdapter

from cascade.config import references
from cascade.config.references import (
    bundled_names,
    file_sha256,
    fingerprint,
    local_model_path,
    resolve_model_path,
)
from cascade.errors import ConfigError
from cascade.models.llamacpp import LlamaCppSettings
from cascade.spec.kinds import Access, ModelSettings
from cascade.spec.registry import MODELS

MODEL = TypeAdapter(Annotated[ModelSettings, MODELS])
TASKS = {"pets": ["cat", "dog"], "sides": ["left", "right", "up"]}


def model(**settings: object) -> ModelSettings:
    return MODEL.validate_python(settings)


def expert(**settings: object) -> ModelSettings:
    return model(kind="llamacpp", path="expert.gguf", **settings)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    make_gguf(tmp_path / "expert.gguf", tasks=TASKS)
    return tmp_path


def hub_cache(folder: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Lay a file out as the hub library keeps it."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
    repo = folder / "models--own--repo"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("abc123")
    file = repo / "snapshots" / "abc123" / "sub" / "m.gguf"
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    return file


def test_a_path_starts_at_the_graphs_folder(base: Path) -> None:
    assert resolve_model_path("expert.gguf", base) == base / "expert.gguf"
    assert resolve_model_path(str(base / "expert.gguf"), Path("/nowhere")) == base / "expert.gguf"


def test_every_bundled_expert_is_found_by_its_name() -> None:
    assert {"tiny", "small"} <= set(bundled_names())
    for name in bundled_names():
        assert resolve_model_path(f"bundled:{name}", Path("/nowhere")).is_file()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("expret.gguf", "GGUF file 'expret.gguf' does not exist; files there: expert.gguf"),
        ("none/expert.gguf", "files there: none"),
        (".", "is a folder"),
        ("a\0b", "does not exist"),
        (
            "bundled:tinny",
            "unknown bundled expert 'tinny'; known: encoder, hunter, small, tiny; did you mean 'tiny'",
        ),
        ("bundled:../tiny", "unknown bundled expert"),
        ("hub:a/b/c.gguf", "'hub:a/b/c.gguf' is not known; give a file, bundled:NAME, or hf:"),
        ("hf:a/b", "expected hf:OWNER/REPO/FILE.gguf"),
        ("hf:a/b/c.bin", "expected hf:OWNER/REPO/FILE.gguf"),
        ("hf:a/b/../c.gguf", "expected hf:OWNER/REPO/FILE.gguf"),
        ("hf:", "expected hf:OWNER/REPO/FILE.gguf"),
    ],
)
def test_a_wrong_path_is_told_what_there_is(base: Path, path: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve_model_path(path, base)


def test_a_hub_file_is_looked_up_in_the_cache_without_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = "hf:own/repo/sub/m.gguf"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert local_model_path(path, tmp_path) is None
    file = hub_cache(tmp_path, b"GGUF", monkeypatch)
    assert local_model_path(path, tmp_path) == file
    assert resolve_model_path(path, tmp_path) == file


class Hub(BaseHTTPRequestHandler):
    """The part of the hub that a download talks to."""

    def do_HEAD(self) -> None:
        self.answer(b"")

    def do_GET(self) -> None:
        self.answer(b"GGUF of the hub")

    def answer(self, body: bytes) -> None:
        error = {"lost": "RepoNotFound", "gated": "GatedRepo"}.get(self.path.split("/")[2])
        there = re.search(r"/m(-0000[123]-of-00003)?\.gguf$", self.path)
        error = error or (None if there else "EntryNotFound")
        self.send_response(200 if error is None else 403 if error == "GatedRepo" else 404)
        if error is not None:
            self.send_header("X-Error-Code", error)
        self.send_header("ETag", '"0123456789abcdef0123456789abcdef01234567"')
        self.send_header("X-Repo-Commit", "0123456789abcdef0123456789abcdef01234567")
        self.send_header("Content-Length", str(len(b"GGUF of the hub") if error is None else 0))
        self.end_headers()
        if error is None:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def download(path: str, folder: Path, **env: str) -> str:
    """Resolve `path` in a process of its own: the hub library reads its settings when it is imported."""
    code = (
        "import sys, pathlib\nfrom cascade.config.references import resolve_model_path\n"
        "from cascade.errors import ModelError\n"
        "try:\n    print(resolve_model_path(sys.argv[1], pathlib.Path('.')).read_bytes().decode())\n"
        "except ModelError as error:\n    print('error:', error)\n"
    )
    settings = {"HF_HOME": str(folder), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", **env}
    done = subprocess.run(
        [sys.executable, "-c", code, path],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_hub_file_is_downloaded_once_and_then_read_without_the_hub(tmp_path: Path, hub: str) -> None:
    assert download("hf:own/repo/m.gguf", tmp_path, HF_ENDPOINT=hub) == "GGUF of the hub"
    assert download("hf:own/repo/m.gguf", tmp_path, HF_HUB_OFFLINE="1") == "GGUF of the hub"


def test_all_parts_of_a_hub_model_are_downloaded(tmp_path: Path, hub: str) -> None:
    first = "hf:own/repo/m-00001-of-00003.gguf"
    assert download(first, tmp_path, HF_ENDPOINT=hub) == "GGUF of the hub"
    names = sorted(file.name for file in tmp_path.rglob("snapshots/*/*"))
    assert names == [f"m-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    assert download(first, tmp_path, HF_HUB_OFFLINE="1") == "GGUF of the hub"
    next(tmp_path.rglob("snapshots/*/m-00002*")).unlink()  # not there as a whole: asked for again
    assert "is not downloaded" in download(first, tmp_path, HF_HUB_OFFLINE="1")
    assert download(first, tmp_path, HF_ENDPOINT=hub) == "GGUF of the hub"


@pytest.mark.parametrize(
    ("path", "env", "message"),
    [
        ("hf:own/repo/n.gguf", {}, "'n.gguf' of hub repository 'own/repo': the repository has no such file"),
        ("hf:own/lost/m.gguf", {}, "'m.gguf' of hub repository 'own/lost': no such repository"),
        ("hf:own/gated/m.gguf", {}, "'m.gguf' of hub repository 'own/gated' is gated; accept its licence"),
        (
            "hf:own/repo/m.gguf",
            {"HF_HUB_OFFLINE": "1"},
            "is not downloaded and HF_HUB_OFFLINE is set; connect once",
        ),
        pytest.param(
            "hf:own/repo/m.gguf",
            {"HF_ENDPOINT": "http://127.0.0.1:9"},
            "and the hub cannot be reached; connect once",
            marks=pytest.mark.slow,  # the hub's library tries five times
        ),
    ],
)
def test_a_hub_file_that_cannot_be_had_says_why(
    tmp_path: Path, hub: str, path: str, env: dict[str, str], message: str
) -> None:
    found = download(path, tmp_path, **{"HF_ENDPOINT": hub, **env})
    assert found.startswith("error:")
    assert message in found


def test_labels_come_from_a_list_a_bundled_task_or_the_file_itself(base: Path) -> None:
    names = expert(labels=["yes", "no"]).resolve(base).labels
    assert names == ("yes", "no")
    assert expert(task="pets").resolve(base).labels == ("cat", "dog")
    intents = model(kind="openai", model="m", labels="bundled:tiny#clinc150").resolve(base).labels
    assert intents is not None
    assert len(intents) == 151
    assert "oos" in intents
    three = model(kind="openai", model="m", labels=["bundled:tiny#clinc150", "oos", "other"])
    both = three.resolve(base).labels
    assert both == (*intents, "other")
    assert model(kind="openai", model="m").resolve(base).labels is None
    assert model(kind="human").resolve(base).labels is None
    assert model(kind="scripted", labels=["a", "b"]).resolve(base).labels == ("a", "b")


def test_labels_may_be_those_of_a_file_beside_the_graph(base: Path) -> None:
    reference = "expert.gguf#pets"
    openai = model(kind="openai", model="m", labels=reference)
    assert openai.resolve(base).labels == tuple(TASKS["pets"])
    assert model(kind="python", call="a:b", labels=reference).resolve(base).labels == tuple(TASKS["pets"])
    assert expert(labels=[reference, "none"]).resolve(base).labels == (*TASKS["pets"], "none")
    assert Access("reads file", "expert.gguf") in list(openai.accesses())


def test_the_task_may_be_left_out_where_the_file_has_only_one(tmp_path: Path) -> None:
    make_gguf(tmp_path / "expert.gguf", tasks={"pets": ["cat", "dog"]})
    assert expert().resolve(tmp_path).labels == ("cat", "dog")
    make_gguf(tmp_path / "expert.gguf")
    assert expert().resolve(tmp_path).labels is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "'expert.gguf' has several tasks; give 'task', one of: pets, sides"),
        ({"task": "pet"}, "unknown task 'pet' of 'expert.gguf'; known: pets, sides; did you mean 'pets'?"),
        ({"labels": "bundled:tiny"}, "no label set; give a list, bundled:NAME#TASK, or FILE.gguf#TASK"),
        ({"labels": "expert.gguf#pet"}, "unknown task 'pet' of 'expert.gguf'; known: pets, sides"),
        ({"labels": ["none.gguf#pets"]}, "GGUF file 'none.gguf' does not exist; files there: expert.gguf"),
        ({"labels": "expert.gguf"}, "no label set; give a list, bundled:NAME#TASK, or FILE.gguf#TASK"),
        ({"labels": "bundled:tiny#clinc"}, "unknown task 'clinc' of bundled expert 'tiny'; known: "),
        ({"labels": ["bundled:none#a"]}, "unknown bundled expert 'none'"),
    ],
)
def test_a_wrong_label_set_is_told_what_there_is(
    base: Path, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        expert(**settings).resolve(base)


def test_a_fingerprint_changes_with_everything_that_decides_an_answer(base: Path) -> None:
    kinds = [
        expert(task="pets"),
        expert(task="sides"),
        expert(prompt="Say: {text}", labels=["yes", "no"]),
        expert(system="Be brief.", labels=["yes", "no"]),
        expert(labels=["yes", "no"]),
        expert(labels=["yes", "no"], temperature=0.5),
        model(kind="openai", model="a"),
        model(kind="openai", model="b"),
        model(kind="openai", model="b", prompt="Say: {text}"),
        model(kind="scripted", default="a"),
        model(kind="scripted", default="b"),
        model(kind="human"),
    ]
    before = [fingerprint(kind, base) for kind in kinds]
    assert len(set(before)) == len(kinds)
    assert all(len(value) == 64 for value in before)
    make_gguf(base / "expert.gguf", tasks=TASKS, seed=1)
    after = [fingerprint(kind, base) for kind in kinds]
    changed = [isinstance(kind, LlamaCppSettings) for kind in kinds]
    assert [old != new for old, new in zip(before, after, strict=True)] == changed


def test_a_fingerprint_does_not_change_with_what_decides_nothing(base: Path) -> None:
    assert fingerprint(expert(task="pets"), base) == fingerprint(
        expert(task="pets", tier="tiny", timeout=5.0, n_threads=1, price={"input": 1, "output": 1}), base
    )


def test_the_fingerprint_of_a_hub_file_needs_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConfigError, match="not downloaded yet"):
        fingerprint(model(kind="llamacpp", path="hf:own/repo/m.gguf"), tmp_path)


def test_the_hash_of_a_large_file_is_kept_until_the_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(references, "HASH_CACHE_BYTES", 3)
    path = tmp_path / "large.bin"
    path.write_bytes(b"12345")
    digest = hashlib.sha256(b"12345").hexdigest()
    assert file_sha256(path) == digest
    [note] = (tmp_path / "cache" / "cascade" / "sha256").iterdir()
    assert note.read_text() == digest
    references._file_sha256.cache_clear()
    note.write_text("f" * 64)
    assert file_sha256(path) == "f" * 64
    references._file_sha256.cache_clear()
    note.write_bytes(b"\xff broken")
    assert file_sha256(path) == digest
    path.write_bytes(b"123456")
    assert file_sha256(path) == hashlib.sha256(b"123456").hexdigest()


def test_a_file_that_is_gone_has_no_hash(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        file_sha256(tmp_path / "gone.gguf")
