"""The variables of the environment that cascade reads, and what each may hold."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from cascade.errors import ConfigError

TRACE_DB = "CASCADE_TRACE_DB"
TRACE_KEY = "CASCADE_TRACE_KEY"
TRACE_KEY_FILE = "CASCADE_TRACE_KEY_FILE"
ENGINE_MEMORY = "CASCADE_ENGINE_MEMORY"
KEY_HOSTS = "CASCADE_KEY_HOSTS"
LOCAL_HOSTS = "CASCADE_LOCAL_HOSTS"

MIN_KEY_BYTES = 16  # of the key that signs the ledger
HOST = re.compile(r"(\*\.)?[A-Za-z0-9_.-]+(:[0-9]+)?|\[[0-9A-Fa-f:.]+\](:[0-9]+)?")


class Variable(NamedTuple):
    """A variable: what it holds, in one line for the documentation, and what is expected of a value.

    `problem` returns None for a good value, else what was expected, as `expected …; fix`.
    """

    name: str
    meaning: str
    problem: Callable[[str], str | None]


def _trace_db(value: str) -> str | None:
    wanted = "expected a file's path or a SQLAlchemy URL such as sqlite:///traces.db; set one, or unset it"
    return None if value.strip() or not value else wanted  # empty is unset


def _key(value: str) -> str | None:
    size = len(value.encode("utf-8", "surrogateescape"))
    if not value or size >= MIN_KEY_BYTES:  # empty is unset, as in `VARIABLE= command`
        return None
    return f"expected at least {MIN_KEY_BYTES} bytes, it has {size}; make one with `openssl rand -hex 32`"


def _key_file(value: str) -> str | None:
    if not value or (os.access(value, os.R_OK) and Path(value).is_file()):
        return None
    return "expected a file that can be read; make it with `openssl rand -hex 32`, or unset it"


def _memory(value: str) -> str | None:
    good = re.fullmatch("[0-9]{1,12}", value) is not None and int(value) >= 1
    return None if good else "expected a number of MiB, 4096 for instance; unset it for half of the memory"


def host_pairs(text: str) -> list[tuple[str, str]]:
    """Return the pairs VARIABLE=HOST in `text`, between commas, white space or lines; # begins a comment.

    Raises:
        ValueError: one is no such pair; the text is what stands in its place.
    """
    pairs = []
    for pair in re.sub(r"#.*", "", text).replace(",", " ").split():
        name, mark, host = pair.partition("=")
        if not (mark and name.isidentifier() and HOST.fullmatch(host)):
            raise ValueError(pair)
        pairs.append((name, host))
    return pairs


def _key_hosts(value: str) -> str | None:
    try:
        host_pairs(value)
    except ValueError as error:
        return f"{str(error)!r}: expected VARIABLE=HOST, separated by commas, such as MY_KEY=llm.example.com"
    return None


def _local_hosts(value: str) -> str | None:
    for host in value.replace(",", " ").split():
        if not HOST.fullmatch(host):
            return f"{host!r}: expected names of hosts, separated by commas; for instance gpu.example.com"
    return None


VARIABLES = (
    Variable(TRACE_DB, "where traces are stored: a file, or a SQLAlchemy URL", _trace_db),
    Variable(TRACE_KEY, f"key that signs the ledger, at least {MIN_KEY_BYTES} bytes", _key),
    Variable(TRACE_KEY_FILE, f"file with that key, if `{TRACE_KEY}` is not set", _key_file),
    Variable(ENGINE_MEMORY, "memory of all local models together, in MiB; default: half of the RAM", _memory),
    Variable(KEY_HOSTS, "hosts that a key may be sent to: `VARIABLE=HOST`, separated by commas", _key_hosts),
    Variable(LOCAL_HOSTS, "hosts that are your own, for `local: true`; separated by commas", _local_hosts),
)


def check_environment(environment: Mapping[str, str] = os.environ) -> None:
    """Check every variable of cascade's that is set.

    Raises:
        ConfigError: one line for each that is wrong, or that is a variable's name misspelt.
    """
    problems = []
    names = [variable.name for variable in VARIABLES]
    for variable in VARIABLES:
        value = environment.get(variable.name)
        wrong = None if value is None else variable.problem(value)
        if wrong:
            shown = "" if variable.name == TRACE_KEY else f" is {value!r}"  # a key is a secret
            problems.append(f"environment: {variable.name}{shown}: {wrong}")
    for name in environment:
        close = difflib.get_close_matches(name, names, n=1, cutoff=0.9)
        if name.startswith("CASCADE_") and name not in names and close:
            problems.append(f"environment: {name} is no variable of cascade's; did you mean {close[0]}?")
    if problems:
        raise ConfigError(*problems)
