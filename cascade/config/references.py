"""What a graph file refers to: GGUF files, bundled experts, the hub, label sets; and their hashes.

Light on purpose: no llama.cpp, and huggingface-hub only to download.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from cascade.config.messages import suggest
from cascade.errors import ConfigError, ModelError
from cascade.files import replace_file
from cascade.formats.expert_file import task_labels
from cascade.formats.gguf_parts import model_files, part_names
from cascade.spec.kinds import ModelFacts, ModelSettings, settings_sha256

EXPERTS = Path(__file__).resolve().parents[1] / "experts"
HASH_CACHE_BYTES = 64 << 20  # hashes of larger files are kept: reading gigabytes takes seconds
_HUB = re.compile(r"hf:(?P<repo>[\w.-]+/[\w.-]+)/(?P<file>[\w./ -]+\.gguf)")
_LABEL_FILE = re.compile(r"([^#\n]+\.gguf)#[^\n]*")
_SCHEME = re.compile(r"[A-Za-z]{2,}:")


class HubFile(NamedTuple):
    """A file of a Hugging Face repository."""

    repo: str
    file: str


def bundled_names() -> list[str]:
    """Return the names of the bundled experts."""
    return sorted(path.stem for path in EXPERTS.glob("*.gguf"))


def bundled_path(name: str) -> Path:
    """Return the GGUF file of a bundled expert.

    Raises:
        ConfigError: there is none of this name.
    """
    known = bundled_names()
    if name not in known:
        raise ConfigError(f"unknown bundled expert {name!r}; {suggest(name, known)}")
    return EXPERTS / f"{name}.gguf"


def hub_file(path: str) -> HubFile | None:
    """Return what `hf:OWNER/REPO/FILE.gguf` names; None if `path` is not a hub reference.

    Raises:
        ConfigError: it starts with `hf:` and is malformed, or is a part other than the first.
    """
    if not path.startswith("hf:"):
        return None
    match = _HUB.fullmatch(path)
    if match is None or ".." in match["file"]:
        raise ConfigError(f"{path!r} is not a hub reference; expected hf:OWNER/REPO/FILE.gguf")
    part_names(match["file"])
    return HubFile(match["repo"], match["file"])


def local_model_path(path: str, base: Path) -> Path | None:
    """Return the file that `path` names, without any network; None for a hub file that is not downloaded yet.

    Of a model in several files it is the first; the others are there too.

    Args:
        path: a file relative to `base`, `bundled:NAME`, or `hf:OWNER/REPO/FILE.gguf`.
        base: the graph's folder.

    Raises:
        ConfigError: the reference is malformed, or the file or one of its parts is missing.
    """
    hub = hub_file(path)
    if hub is not None:
        return _in_hub_cache(hub)
    if path.startswith("bundled:"):
        return bundled_path(path.removeprefix("bundled:"))
    if _SCHEME.match(path):
        raise ConfigError(f"{path!r} is not known; give a file, bundled:NAME, or hf:OWNER/REPO/FILE.gguf")
    file = existing_file(path, base, "GGUF file")
    model_files(file)
    return file


def existing_file(path: str, base: Path, what: str) -> Path:
    """Return `path` relative to `base`.

    Raises:
        ConfigError: it is missing or is a folder; `what` names it in the message.
    """
    file = base / path
    if "\0" not in path and file.is_file():
        return file
    known = sorted(other.name for other in file.parent.glob(f"*{file.suffix}") if other.is_file())
    state = "is a folder" if "\0" not in path and file.is_dir() else "does not exist"
    raise ConfigError(f"{what} {path!r} {state}; files there: {', '.join(known[:20]) or 'none'}")


def resolve_model_path(path: str, base: Path) -> Path:
    """Return the GGUF file that `path` names; a hub file is downloaded where it is not in the cache yet.

    Args:
        path: a file relative to `base`, `bundled:NAME`, or `hf:OWNER/REPO/FILE.gguf`.
        base: the graph's folder.

    Raises:
        ConfigError: the reference is malformed, or the file is missing.
        ModelError: the hub's file cannot be downloaded.
    """
    file = local_model_path(path, base)
    hub = hub_file(path)
    return _download(hub) if file is None and hub is not None else file or base / path


def _in_hub_cache(hub: HubFile) -> Path | None:
    # The hub library's own look-up would import its HTTP client, which takes 0.1 s.
    try:
        from huggingface_hub.constants import HF_HUB_CACHE
    except ImportError:  # without the extra `local` nothing was downloaded that could run
        return None
    folder = Path(HF_HUB_CACHE) / f"models--{hub.repo.replace('/', '--')}"
    try:
        commit = (folder / "refs" / "main").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    snapshot = folder / "snapshots" / commit
    files = [snapshot / name for name in part_names(hub.file)]
    return files[0] if all(file.is_file() for file in files) else None


def _download(hub: HubFile) -> Path:
    """Download a file, or all parts of a model in several, and return its (first) path."""
    first, *_others = [_download_file(HubFile(hub.repo, name)) for name in part_names(hub.file)]
    return first


def _download_file(hub: HubFile) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.constants import HF_HUB_OFFLINE
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    source = f"{hub.file!r} of hub repository {hub.repo!r}"
    try:
        return Path(hf_hub_download(hub.repo, hub.file))
    except GatedRepoError as error:
        raise ModelError(f"{source} is gated; accept its licence on the hub and set HF_TOKEN") from error
    except RepositoryNotFoundError as error:
        raise ModelError(f"{source}: no such repository, or it is private; set HF_TOKEN then") from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        why = "HF_HUB_OFFLINE is set" if HF_HUB_OFFLINE else "the hub cannot be reached"
        fix = "connect once, set HF_HOME to a folder that has it, or give a local path"
        raise ModelError(f"{source} is not downloaded and {why}; {fix}") from error
    except EntryNotFoundError as error:
        raise ModelError(f"{source}: the repository has no such file; look at its file list") from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{source} cannot be downloaded: {error}") from error


def gguf_tasks(path: Path) -> dict[str, tuple[str, ...]]:
    """Return the tasks of a GGUF expert, bundled or learned, with their labels.

    Raises:
        ConfigError: the file is broken.
    """
    return _tasks(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=64)
def _tasks(path: Path, _changed: int) -> dict[str, tuple[str, ...]]:
    return task_labels(path)


def label_file(reference: str) -> str | None:
    """Return the file beside the graph that `FILE.gguf#TASK` names; None if `reference` is no such thing."""
    match = _LABEL_FILE.fullmatch(reference)
    return None if match is None or reference.startswith("bundled:") else match[1]


def referred_labels(reference: str, base: Path) -> tuple[str, ...]:
    """Return the labels that `bundled:NAME#TASK` or `FILE.gguf#TASK` names.

    Raises:
        ConfigError: it is malformed, or the expert or its task is unknown.
    """
    name, mark, task = reference.partition("#")
    file = label_file(reference)
    if not mark or (file is None and not reference.startswith("bundled:")):
        text = f"{reference!r} names no label set; give a list, bundled:NAME#TASK, or FILE.gguf#TASK"
        raise ConfigError(text)
    if file is not None:
        tasks, what = gguf_tasks(existing_file(file, base, "GGUF file")), repr(file)
    else:
        name = name.removeprefix("bundled:")
        tasks, what = gguf_tasks(bundled_path(name)), f"bundled expert {name!r}"
    if task not in tasks:
        raise ConfigError(f"unknown task {task!r} of {what}; {suggest(task, tasks)}")
    return tasks[task]


def fingerprint(model: ModelSettings, base: Path, facts: ModelFacts | None = None) -> str:
    """Return a SHA-256 (hex) over what decides a model's answers; `facts` are resolved if they are missing.

    Raises:
        ConfigError: a file or a label set that the model needs is missing, broken, or not downloaded yet.
    """
    return model.fingerprint(base, model.resolve(base) if facts is None else facts)


def model_sha256(path: Path) -> str:
    """Return a SHA-256 (hex) over all files of the model whose only or first file is `path`.

    Raises:
        ConfigError: a file is missing or cannot be read.
    """
    hashes = [file_sha256(file) for file in model_files(path)]
    return hashes[0] if len(hashes) == 1 else settings_sha256(hashes)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 (hex) of a file; those of large files are kept by path, size and time.

    Raises:
        ConfigError: the file cannot be read.
    """
    try:
        state = path.stat()
        return _file_sha256(path.resolve(), state.st_size, state.st_mtime_ns)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error


@lru_cache(maxsize=64)
def _file_sha256(path: Path, size: int, changed: int) -> str:
    if size <= HASH_CACHE_BYTES:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    from platformdirs import user_cache_path

    key = settings_sha256([str(path), size, changed])
    note = user_cache_path("cascade") / "sha256" / key
    with contextlib.suppress(OSError, ValueError):
        known = note.read_text(encoding="ascii")
        if re.fullmatch("[0-9a-f]{64}", known):
            return known
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    with contextlib.suppress(OSError):  # without the cache the next call is slow, but right
        replace_file(note, digest.encode())
    return digest
