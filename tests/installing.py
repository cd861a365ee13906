"""Helper of the tests: the wheel, and empty environments that it is installed in, without any index.

Dependencies come from the environment that the tests run in: all of them, or only those that the wheel's own
metadata asks for, linked file by file.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement


@dataclass(frozen=True)
class Environment:
    """A virtual environment in `folder`."""

    folder: Path

    def run(self, *command: str, cwd: Path, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Run a command with this environment's programs first on the path."""
        path = f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        return subprocess.run(
            command, cwd=cwd, env=variables | {"PATH": path}, capture_output=True, text=True, timeout=timeout,
            check=False,
        )  # fmt: skip

    @property
    def packages(self) -> Path:
        """Its site-packages folder."""
        variables = {"base": str(self.folder), "platbase": str(self.folder)}
        return Path(sysconfig.get_path("purelib", "venv", variables))


def build_wheel(root: Path, folder: Path) -> Path:
    """Build the wheel of the checkout at `root` into `folder`."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=root, check=True, capture_output=True, timeout=300)
    (wheel,) = folder.glob("*.whl")
    return wheel


def environment_with(wheel: Path, folder: Path) -> Environment:
    """Make an empty environment and install `wheel` into it, without its dependencies."""
    venv.create(folder, with_pip=False)
    made = Environment(folder)
    command = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install", "--quiet"]
    command += ["--no-deps", "--no-index", "--disable-pip-version-check", str(wheel)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return made


def share_all(environment: Environment) -> None:
    """Let `environment` see every package of the one that the tests run in; its own come first."""
    folders = [path for path in sys.path if path.endswith("site-packages")]
    (environment.packages / "outer.pth").write_text("\n".join(folders))


def link_dependencies(environment: Environment, name: str, extras: Iterable[str] = ()) -> set[str]:
    """Link what the distribution `name` in `environment` requires; return the names of what was linked."""
    (own,) = [
        found for found in Distribution.discover(path=[str(environment.packages)]) if found.name == name
    ]
    linked: dict[str, None] = {}
    todo = list(_required(own, extras))
    done: set[tuple[str, tuple[str, ...]]] = set()
    while todo:
        requirement = todo.pop()
        key = requirement.name, tuple(sorted(requirement.extras))
        if key in done:
            continue
        done.add(key)
        found = distribution(requirement.name)
        todo += _required(found, requirement.extras)
        if found.name not in linked:
            linked[found.name] = None
            _link(found, environment.packages)
    return set(linked)


def _required(found: Distribution, extras: Iterable[str]) -> Iterator[Requirement]:
    for line in found.requires or ():
        requirement = Requirement(line)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield requirement


def _link(found: Distribution, packages: Path) -> None:
    for file in found.files or ():
        if ".." in file.parts or "__pycache__" in file.parts:
            continue  # scripts, and byte code that belongs beside its source
        target = packages / file
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            target.symlink_to(Path(str(found.locate_file(file))).resolve())
