"""Which hosts a key may be sent to, and which are this machine or its private network.

A graph file may come from a stranger. It names the variable of a key and a URL, so without a rule it could
send any variable of the environment anywhere.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from cascade.environment import KEY_HOSTS, LOCAL_HOSTS, host_pairs
from cascade.errors import ConfigError
from cascade.spec.kinds import Access

DEFAULT_URL = "https://api.openai.com/v1"
# Variables that providers document for their keys, with the hosts of their own APIs.
KNOWN_HOSTS = {
    "ANTHROPIC_API_KEY": ("api.anthropic.com",),
    "AZURE_OPENAI_API_KEY": ("*.openai.azure.com", "*.services.ai.azure.com"),
    "CEREBRAS_API_KEY": ("api.cerebras.ai",),
    "DEEPSEEK_API_KEY": ("api.deepseek.com",),
    "FIREWORKS_API_KEY": ("api.fireworks.ai",),
    "GEMINI_API_KEY": ("generativelanguage.googleapis.com",),
    "GROQ_API_KEY": ("api.groq.com",),
    "HF_TOKEN": ("router.huggingface.co",),
    "MISTRAL_API_KEY": ("api.mistral.ai",),
    "OPENAI_API_KEY": ("api.openai.com", "*.api.openai.com"),
    "OPENROUTER_API_KEY": ("openrouter.ai",),
    "TOGETHER_API_KEY": ("api.together.xyz", "api.together.ai"),
    "XAI_API_KEY": ("api.x.ai",),
}
_PRIVATE_NAMES = (".local", ".localhost", ".internal", ".lan", ".home.arpa", ".test")


def key_problem(key_env: str, url: str, *, from_environment: bool) -> str | None:
    """Return why the key in variable `key_env` is not sent to `url`; None if it may be.

    It may go to a URL that the environment holds, to this machine, to the provider that documents the
    variable, and to the hosts that `CASCADE_KEY_HOSTS` or the user's file of key hosts gives for it.

    Args:
        key_env: the variable that holds the key.
        url: the base URL.
        from_environment: a variable holds the URL, and not the graph file.

    Raises:
        ConfigError: one of the user's lists of hosts is malformed.
    """
    host = host_of(url)
    if from_environment or _is_loopback(host):
        return None
    known_hosts = KNOWN_HOSTS.get(key_env, ())
    if any(_matches(pattern, url) for pattern in known_hosts):
        return None  # without reading the user's file: this is asked several times for each call
    allowed = [*known_hosts, *_user_hosts(key_env)]
    if any(_matches(pattern, url) for pattern in allowed):
        return None
    known = ", ".join(allowed) or "no host"
    return (
        f"the key in {key_env} may go to {known} and not to {host}, which the graph file names; "
        f"if you trust that host, set {KEY_HOSTS}={key_env}={host}"
    )


def local_problem(url: str) -> str | None:
    """Return why an endpoint at `url` is not `local: true`; None if its host may be private.

    A name is private if it has no dot or a private ending; `CASCADE_LOCAL_HOSTS` adds others.
    """
    host = host_of(url)
    try:
        private = not ipaddress.ip_address(host).is_global
    except ValueError:
        private = "." not in host or host.endswith(_PRIVATE_NAMES)
    extra = os.environ.get(LOCAL_HOSTS, "").replace(",", " ").split()
    if private or any(_matches(pattern, url) for pattern in extra):
        return None
    return (
        f"{host} is no address of this machine or its private network, so it is not local: true; "
        f"drop 'local', or set {LOCAL_HOSTS}={host} if the host is yours"
    )


def endpoint_accesses(url: str | None, url_env: str, key_env: str | None) -> Iterator[Access]:
    """Yield what an endpoint of a graph file reads and contacts."""
    if url is None:
        yield Access("reads variable", url_env, "the endpoint's address")
        yield Access("contacts", f"the host in {url_env}, else {host_of(DEFAULT_URL)}")
    else:
        yield Access("contacts", host_of(url) or url)
    if key_env is not None:
        refused = key_problem(key_env, DEFAULT_URL if url is None else url, from_environment=False)
        sent = f"not sent: {refused}" if refused else f"sent to {host_of(url or DEFAULT_URL)}"
        if url is None:
            sent = f"sent to the host in {url_env}" + ("" if refused else f", else {host_of(DEFAULT_URL)}")
        yield Access("reads variable", key_env, sent)


def host_of(url: str) -> str:
    """Return the host of a URL in lower case, without brackets and final dot; empty if there is none.

    URLs with what parsers read differently (white space, control characters, backslashes) have none.
    """
    try:
        return "" if re.search(r"[\s\\\x00-\x1f\x7f]", url) else (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:
        return ""


def _user_hosts(key_env: str) -> Iterator[str]:
    """Yield the hosts that the environment and the user's file give for a variable."""
    from platformdirs import user_config_path

    file = user_config_path("cascade") / "key_hosts"
    for source, text in ((KEY_HOSTS, os.environ.get(KEY_HOSTS, "")), (str(file), _read(file))):
        try:
            yield from (host for name, host in host_pairs(text) if name == key_env)
        except ValueError as error:
            raise ConfigError(
                f"{source}: {str(error)!r:.80} is no pair; expected VARIABLE=HOST, as in MY_KEY=*.example.com"
            ) from None


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read: {error}; expected lines VARIABLE=HOST") from error


def _matches(pattern: str, url: str) -> bool:
    """Return whether a host pattern matches a URL: `*.` is any subdomain; without a port, any port."""
    name, mark, port = pattern.rpartition(":") if re.search(r":[0-9]+$", pattern) else (pattern, "", "")
    name, host, parts = name.strip("[]").lower().rstrip("."), host_of(url), urlsplit(url)
    if mark and int(port) != (parts.port or {"http": 80, "https": 443}.get(parts.scheme)):
        return False
    return host.endswith(name[1:]) if name.startswith("*.") else host == name


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
