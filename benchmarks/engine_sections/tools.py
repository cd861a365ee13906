"""llama.cpp's own programs, built from the sources inside the sdist of the binding that is installed.

The same sources and compiler flags as the binding's own library, so a difference in speed is the engine's.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import NamedTuple

from cascade.errors import ConfigError

_PACKAGE = "llama-cpp-python"
_PROGRAMS = ("llama-batched-bench", "llama-server")
_ON = ("GGML_NATIVE", "GGML_OPENMP", "LLAMA_BUILD_COMMON", "LLAMA_BUILD_TOOLS", "LLAMA_BUILD_SERVER")
_OFF = (
    "BUILD_SHARED_LIBS", "LLAMA_OPENSSL", "LLAMA_BUILD_UI", "LLAMA_USE_PREBUILT_UI", "LLAMA_BUILD_TESTS",
    "LLAMA_BUILD_EXAMPLES", "LLAMA_BUILD_APP",
)  # fmt: skip


class Tools(NamedTuple):
    """Paths of the programs."""

    batched_bench: Path
    server: Path


def find_tools(work: Path) -> Tools | None:
    """Return the programs in `work`; None if they are not built there."""
    paths = [work / "build" / "bin" / program for program in _PROGRAMS]
    return Tools(*paths) if all(path.is_file() for path in paths) else None


def build_tools(work: Path, jobs: int) -> Tools:
    """Download the sdist, build the programs in `work` (10 to 30 minutes once), and return them.

    Raises:
        ConfigError: the sources hold no such programs, or a step failed; the message names the step.
    """
    work.mkdir(parents=True, exist_ok=True)
    source = _sources(work)
    switches = [*(f"-D{name}=ON" for name in _ON), *(f"-D{name}=OFF" for name in _OFF)]
    build = str(work / "build")
    _run("cmake", "-S", str(source), "-B", build, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", *switches)
    _run("nice", "cmake", "--build", build, "-j", str(jobs), "--target", *_PROGRAMS)
    tools = find_tools(work)
    if tools is None:
        raise ConfigError(f"the build left no {', '.join(_PROGRAMS)} in {build}/bin; look at its output")
    return tools


def _sources(work: Path) -> Path:
    version = importlib.metadata.version(_PACKAGE)
    name = f"{_PACKAGE.replace('-', '_')}-{version}"
    source = work / name / "vendor" / "llama.cpp"
    if not source.is_dir():
        archive = work / f"{name}.tar.gz"
        if not archive.is_file():
            wanted = f"{_PACKAGE}=={version}"
            options = ("--no-deps", "--no-binary", _PACKAGE, "--dest", str(work))
            _run(sys.executable, "-m", "pip", "download", *options, wanted)
        with tarfile.open(archive) as packed:
            packed.extractall(work, filter="data")
    if not (source / "tools" / "batched-bench").is_dir():
        raise ConfigError(
            f"{source} has no tools/batched-bench: this sdist came without llama.cpp's programs. "
            f"Put a checkout of the llama.cpp commit that {_PACKAGE} {version} vendors in its place"
        )
    return source


def _run(*command: str) -> None:
    try:
        subprocess.run(command, check=True, stdout=sys.stderr)  # noqa: S603  # our own arguments, no shell
    except FileNotFoundError as error:
        raise ConfigError(
            f"{command[0]} is missing; building needs cmake, ninja and a C++ compiler"
        ) from error
    except subprocess.CalledProcessError as error:
        raise ConfigError(
            f"{' '.join(command[:3])} … ended with {error.returncode}; its output says why"
        ) from error
