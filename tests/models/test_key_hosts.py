"""A key goes only where the user allows it, whatever a graph file says."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loopback import Loopback, stream
from scripting import load, write

from cascade import Cascade
from cascade.config.load import load_graph
from cascade.errors import ConfigError
from cascade.models.openai.hosts import host_of, key_problem, local_problem


def refused(key_env: str, url: str) -> bool:
    return key_problem(key_env, url, from_environment=False) is not None


@pytest.mark.parametrize(("key_env", "url", "allowed"), [
    ("OPENAI_API_KEY", "https://api.openai.com/v1", True),
    ("OPENAI_API_KEY", "https://EU.API.openai.com/v1", True),
    ("OPENAI_API_KEY", "https://api.openai.com.evil.example/v1", False),
    ("OPENAI_API_KEY", "https://evil-api.openai.com/v1", False),
    ("OPENAI_API_KEY", "https://api.openai.com@evil.example/v1", False),
    ("OPENAI_API_KEY", "https://evil.example\\@api.openai.com/v1", False),
    ("GROQ_API_KEY", "https://api.groq.com/openai/v1", True),
    ("GROQ_API_KEY", "https://api.openai.com/v1", False),
    ("AWS_SECRET_ACCESS_KEY", "https://api.openai.com/v1", False),
    ("AWS_SECRET_ACCESS_KEY", "http://127.0.0.1:8080/v1", True),
    ("AWS_SECRET_ACCESS_KEY", "http://[::1]:8080/v1", True),
    ("AWS_SECRET_ACCESS_KEY", "http://localhost.:8080/v1", True),
    ("AWS_SECRET_ACCESS_KEY", "http://localhost.evil.example/v1", False),
    ("AWS_SECRET_ACCESS_KEY", "http://127.0.0.1.evil.example/v1", False),
    ("AWS_SECRET_ACCESS_KEY", "http://169.254.169.254/v1", False),
    ("AWS_SECRET_ACCESS_KEY", "http://", False),
])  # fmt: skip
def test_a_key_goes_to_its_provider_and_to_this_machine(key_env: str, url: str, allowed: bool) -> None:
    assert refused(key_env, url) is not allowed


def test_the_user_allows_more_hosts_by_variable_or_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert refused("MY_KEY", "https://llm.example.com/v1")
    monkeypatch.setenv(
        "CASCADE_KEY_HOSTS", "MY_KEY=llm.example.com, MY_KEY=*.example.org:8443 OTHER=a.example"
    )
    assert not refused("MY_KEY", "https://LLM.example.com/v1")
    assert refused("OTHER", "https://llm.example.com/v1")
    assert not refused("MY_KEY", "https://x.y.example.org:8443/v1")
    assert refused("MY_KEY", "https://x.y.example.org/v1")
    assert refused("MY_KEY", "https://example.org:8443/v1")
    monkeypatch.delenv("CASCADE_KEY_HOSTS")
    (tmp_path / "cascade").mkdir()
    (tmp_path / "cascade" / "key_hosts").write_text(
        "# ours\nMY_KEY=llm.example.com # this one\n", encoding="utf-8"
    )
    assert not refused("MY_KEY", "https://llm.example.com/v1")
    (tmp_path / "cascade" / "key_hosts").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="key_hosts: cannot be read"):
        refused("MY_KEY", "https://llm.example.com/v1")


@pytest.mark.parametrize("value", ["MY_KEY", "=host", "MY_KEY=", "MY_KEY=https://host", "MY_KEY=*", "1=host"])
def test_a_malformed_list_of_hosts_is_an_error(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("CASCADE_KEY_HOSTS", value)
    with pytest.raises(ConfigError, match=r"CASCADE_KEY_HOSTS: .* is no pair; expected VARIABLE=HOST"):
        refused("MY_KEY", "https://llm.example.com/v1")


PIECES = [
    "http://", "https://", "api.openai.com", "localhost", "evil.example", "::1", "127.0.0.1", "1", "80", "e",
    *"@:/\\#?.[]; \t\0", "%2e", "%00", "\u3002", "\uff0e", "\u212a",
]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=9).map("".join))
def test_the_client_never_asks_another_host_than_the_one_that_was_judged(url: str) -> None:
    if refused("OPENAI_API_KEY", url):
        return
    try:
        asked = httpx2.URL(url)
    except (httpx2.InvalidURL, ValueError):
        return  # the client refuses it, too
    assert asked.host.rstrip(".") == host_of(url)
    assert asked.host.rstrip(".").endswith(("api.openai.com", "localhost", "127.0.0.1", "::1"))


def test_a_strangers_graph_gets_no_key_and_the_reason_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "sk-secret")
    price = {"input": 1, "output": 1}
    model = {
        "kind": "openai",
        "model": "m",
        "url": "http://evil.example/v1",
        "key_env": "SECRET",
        "price": price,
    }
    with load(tmp_path, {"m": model}, [{"name": "s", "ask": ["m"]}]) as cascade:
        result = cascade.invoke("hello")
        reason = cascade.models["m"].unavailable() or ""
    assert (result.status, result.trace[0].calls) == ("abstained", ())
    assert "the key in SECRET may go to no host and not to evil.example" in reason
    assert "set CASCADE_KEY_HOSTS=SECRET=evil.example" in reason


def test_a_url_of_the_environment_gets_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "sk-secret")
    with Loopback() as server:
        server.answers = [stream(["hello"])]
        monkeypatch.setenv("MY_URL", server.url)
        model = {"kind": "openai", "model": "gpt-5.2", "url_env": "MY_URL", "key_env": "SECRET"}
        with load(tmp_path, {"m": model}, [{"name": "s", "ask": ["m"]}]) as cascade:
            result = cascade.invoke("hello")
        assert result.text == "hello", result.trace[0].calls
        assert server.requests[0].headers["authorization"] == "Bearer sk-secret"


@pytest.mark.parametrize(("url", "local"), [
    ("http://127.0.0.1:1/v1", True), ("http://192.168.1.7/v1", True), ("http://llama:8080/v1", True),
    ("http://gpu.lan/v1", True), ("http://[fd00::1]/v1", True), ("http://8.8.8.8/v1", False),
    ("https://api.openai.com/v1", False), ("https://localhost.example.com/v1", False),
])  # fmt: skip
def test_an_endpoint_is_local_only_on_a_private_host(tmp_path: Path, url: str, local: bool) -> None:
    assert (local_problem(url) is None) is local
    model = {"kind": "openai", "model": "m", "url": url, "key_env": None, "local": True}
    path = write(tmp_path, {"m": model}, [{"name": "s", "ask": ["m"]}])
    if local:
        load_graph(path)
    else:
        with pytest.raises(ConfigError, match=r"models\.m\.local: .* is no address of this machine"):
            load_graph(path)


def test_a_public_host_may_be_declared_ones_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MY_URL", "https://llm.example.com/v1")
    model = {"kind": "openai", "model": "m", "url_env": "MY_URL", "key_env": None, "local": True}
    path = write(tmp_path, {"m": model}, [{"name": "s", "ask": ["m"]}])
    with Cascade.load(path) as cascade:
        assert "set CASCADE_LOCAL_HOSTS=llm.example.com" in (cascade.models["m"].unavailable() or "")
        monkeypatch.setenv("CASCADE_LOCAL_HOSTS", "other.example,*.example.com")
        assert cascade.models["m"].unavailable() is None
