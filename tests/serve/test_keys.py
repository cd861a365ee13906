"""API keys: hashed at rest, limited, and reread when the file changes."""

from __future__ import annotations

import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cascade.cli.main import app
from cascade.errors import ConfigError
from cascade.serve.openai.errors import ApiError
from cascade.serve.openai.keys import Keyring, Rate, add_key, read_keys, remove_key


def test_only_the_hash_of_a_key_is_kept_and_only_the_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    key, secret = add_key(path, name="shop", graphs=("support",), per_minute=5)
    assert secret not in path.read_text()
    assert key.sha256 in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    ring = Keyring(path)
    assert ring.find(secret) == key
    assert ring.find(secret + "x") is None


def test_a_changed_file_is_read_again_and_a_broken_one_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    _, first = add_key(path, name="one")
    ring = Keyring(path)
    _, second = add_key(path, name="two")
    assert ring.find(second) is not None
    good = path.read_text()
    path.write_text("{")
    assert ring.find(first) is not None
    path.write_text(good)
    remove_key(path, "one")
    assert ring.find(first) is None
    assert ring.find(second) is not None


def test_without_its_file_nobody_is_let_in_until_it_is_back(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    _, first = add_key(path, name="one", day_usd=2.0)
    _, second = add_key(path, name="two")
    ring = Keyring(path)
    kept = path.read_text()
    path.unlink()
    assert ring.find(first) is None
    assert ring.find(second) is None
    assert ring.day_usd("one") == 0.0  # what is still at work spends nothing more
    path.write_text("{")  # somebody makes it anew
    assert ring.find(first) is None
    path.write_text(kept)
    assert ring.find(first) is not None
    assert (ring.day_usd("one"), ring.day_usd("two"), ring.day_usd("other")) == (2.0, None, None)
    remove_key(path, "one")
    assert (ring.day_usd("one"), ring.find(first)) == (0.0, None)


ADD = "import sys; from cascade.cli.main import app; app(['keys', 'add', sys.argv[1], '--file', sys.argv[2]])"


def test_keys_that_are_added_and_removed_at_once_are_all_kept(tmp_path: Path) -> None:
    path = tmp_path / "new" / "keys.json"
    names = [f"shop{number}" for number in range(6)]
    command = [sys.executable, "-c", ADD]
    adding = [subprocess.Popen([*command, name, str(path)], stdout=subprocess.PIPE) for name in names]
    assert [process.wait(120) for process in adding] == [0] * 6
    secrets = [process.communicate()[0].decode().strip() for process in adding]
    assert sorted(key.name for key in read_keys(path).keys) == names
    with ThreadPoolExecutor(24) as pool:
        made = [pool.submit(add_key, path, name=f"more{number}") for number in range(24)]
        gone = [pool.submit(remove_key, path, name) for name in names[:3]]
        assert len({future.result()[1] for future in made}) == 24
        assert [future.result() for future in gone] == [None] * 3
    ring = Keyring(path)
    assert [ring.find(secret) is not None for secret in secrets] == [False] * 3 + [True] * 3
    assert len(read_keys(path).keys) == 27
    assert [file.name for file in path.parent.iterdir()] == ["keys.json"]


def test_names_are_unique_and_unknown_ones_are_named(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    add_key(path, name="one")
    with pytest.raises(ConfigError, match="a key 'one' exists"):
        add_key(path, name="one")
    with pytest.raises(ConfigError, match="no key 'two'; known: one"):
        remove_key(path, "two")


@pytest.mark.parametrize("name", ["", "two words", "9lives", "a" * 65, "naïve", "a\n"])
def test_what_is_no_name_is_refused_in_words(tmp_path: Path, name: str) -> None:
    path = tmp_path / "keys.json"
    with pytest.raises(ConfigError, match=r"is no name of an account; expected a letter"):
        add_key(path, name=name)
    assert not path.exists()


def test_who_waits_as_long_as_told_is_let_in() -> None:
    now = [0.0]
    rate = Rate(lambda: now[0])
    for per_minute in (7, 45, 100):  # 8.57, 1.33 and 0.6 s between two
        account = str(per_minute)
        while not (wait := rate.take(account, per_minute)):
            continue
        now[0] += int(ApiError(429, "", retry_after=wait).response().headers["retry-after"])
        assert rate.take(account, per_minute) == 0.0


@pytest.mark.parametrize("text", ["", "{}x", '{"keys": [{"name": "a"}]}', '{"keys": [], "more": 1}', "[]"])
def test_a_broken_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"keys\.json"):
        Keyring(path)


def test_the_rate_is_a_burst_and_then_steady() -> None:
    now = [0.0]
    rate = Rate(lambda: now[0])
    assert [rate.take("a", 2) for _ in range(2)] == [0.0, 0.0]
    assert rate.take("a", 2) == pytest.approx(30)
    assert rate.take("b", 2) == 0.0  # another account has a bucket of its own
    now[0] = 30.0
    assert rate.take("a", 2) == 0.0
    assert rate.take("a", 2) == pytest.approx(30)
    now[0] = 3600.0
    assert [rate.take("a", 2) for _ in range(3)] == [0.0, 0.0, pytest.approx(30)]


def test_the_command_line_makes_lists_and_removes_keys(tmp_path: Path) -> None:
    file, cli = str(tmp_path / "keys.json"), CliRunner()
    made = cli.invoke(app, ["keys", "add", "shop", "--file", file, "--graph", "support", "--day-usd", "2"])
    assert made.output.startswith("csk_")
    listed = cli.invoke(app, ["keys", "list", "--file", file])
    assert "shop: support, $2 a day; made " in listed.output
    assert made.output.strip() not in listed.output
    assert cli.invoke(app, ["keys", "remove", "shop", "--file", file]).exit_code == 0
    assert read_keys(Path(file)).keys == ()
