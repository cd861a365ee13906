"""Optional dependencies: the distribution's name, and the advice for a package that is not installed."""

from __future__ import annotations

import importlib.util

from cascade.errors import ConfigError

DISTRIBUTION = "cascade-moe"
TUNE_PACKAGES = ("numpy", "scipy")  # of the extra `tune`; too many functions need them to check in each


def install_command(extra: str) -> str:
    """Return the command that installs `extra`, quoted for a shell."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"


def missing_package(what: str, error: ImportError, extra: str) -> str:
    """Return the message for `what`, a feature of `extra`, when importing one of its packages failed."""
    return f"{what} needs {error.name}; {install_command(extra)}"


def require(module: str, what: str, extra: str) -> None:
    """Check, without importing it, that `module` is installed, which `what` needs and `extra` brings.

    Raises:
        ConfigError: it is not; the message ends with the command to run.
    """
    if importlib.util.find_spec(module) is None:
        raise ConfigError(f"{what} needs {module}; {install_command(extra)}")
