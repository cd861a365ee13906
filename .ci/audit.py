"""Audits the locked packages: licences, and known weaknesses by pip-audit. Exits with 1 if one is wrong.

Licences are read from what is installed, so it needs no network. Weaknesses are looked up at the index.
If it knows none of the packages (no network, or a mirror without that service), this says so and passes.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

LOCKS = ("requirements-dev.lock", "requirements-build.lock")  # the first holds requirements.lock, too
# Licences that let anybody use, change and ship a package beside ours; MPL and LGPL bind changes of it alone.
ALLOWED = re.compile(
    "MIT|BSD|Apache|ISC|PSF|Python Software Foundation|Python-2|CNRI|MPL|Mozilla Public|Unlicense|Zlib|HPND"
    "|LGPL|Lesser General Public|Public Domain|Historical Permission|CC0",
    re.IGNORECASE,
)
REFUSED = re.compile(r"(?<![A-Za-z])A?GPL|GNU General Public|GNU Affero", re.IGNORECASE)
# Packages whose metadata name no licence that the pattern knows, looked up by hand: name -> its licence.
BY_HAND: dict[str, str] = {}
# Known weaknesses that do not concern us: id -> why.
IGNORED: dict[str, str] = {}


def locked() -> dict[str, str]:
    """Return name -> version of every package that a lock names."""
    lines = "\n".join(Path(lock).read_text(encoding="utf-8") for lock in LOCKS)
    return dict(re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", lines, re.MULTILINE))


def licence(name: str) -> str | None:
    """Return what an installed package says of its licence; None if it is not installed."""
    try:
        about = metadata(name)
    except PackageNotFoundError:
        return None
    classifiers = [line for line in about.get_all("Classifier") or () if line.startswith("License ::")]
    said = [about.get("License-Expression") or "", *classifiers, (about.get("License") or "").split("\n")[0]]
    return "; ".join(filter(None, said)) or "none named"


def licence_problems() -> list[str]:
    """Return a line for each package whose licence is not allowed."""
    problems = []
    for name in sorted(locked()):
        found = BY_HAND.get(name) or licence(name)
        if found is not None and (REFUSED.search(found) or not ALLOWED.search(found)):
            problems.append(f"{name}: licence {found!r} is not known to be allowed; see .ci/audit.py")
    return problems


def weaknesses() -> list[str]:
    """Return a line for each known weakness of a locked package."""
    given = [argument for lock in LOCKS for argument in ("-r", lock)]
    command = [sys.executable, "-m", "pip_audit", *given, "--disable-pip", "--require-hashes", "-f", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own words
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        print(f"not audited for known weaknesses: {done.stderr.strip().splitlines()[-1:]}")
        return []
    known = [package for package in packages if "skip_reason" not in package]
    print(f"{len(known)} of {len(packages)} packages are known to the service of weaknesses")
    return [
        f"{package['name']} {package['version']}: {found['id']}, fixed in {found['fix_versions']}"
        for package in known
        for found in package["vulns"]
        if found["id"] not in IGNORED
    ]


if __name__ == "__main__":
    problems = [*licence_problems(), *weaknesses()]
    print("\n".join(problems) or f"licences of {len(locked())} locked packages: nothing to object to")
    sys.exit(bool(problems))
