"""Every variable that cascade reads is known in one place, checked when a graph is loaded, and documented."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripting import scripted, write

from cascade import ConfigError
from cascade.config import load_graph
from cascade.environment import ENGINE_MEMORY, KEY_HOSTS, TRACE_KEY, VARIABLES, check_environment

NAMES = [variable.name for variable in VARIABLES]
WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=40)


def test_the_code_reads_no_other_variable(root: Path) -> None:
    found = set()
    for path in (root / "cascade").rglob("*.py"):
        if "training" not in path.parts:  # not in the wheel
            found |= set(re.findall(r"\bCASCADE_[A-Z_]+", path.read_text()))
    assert found == set(NAMES)


def test_the_table_of_the_documentation_is_this_one(root: Path) -> None:
    rows = [f"| `{variable.name}` | {variable.meaning} |" for variable in VARIABLES]
    assert "\n".join(rows) in (root / "docs" / "deployment.md").read_text()


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(NAMES, WORDS)))
def test_any_values_are_taken_or_named_with_what_was_expected(values: dict[str, str]) -> None:
    wrong = {v.name for v in VARIABLES if v.name in values and v.problem(values[v.name])}
    if not wrong:
        check_environment(values)
        return
    with pytest.raises(ConfigError) as caught:
        check_environment(values)
    assert len(caught.value.problems) == len(wrong)
    for line in caught.value.problems:
        assert line.startswith("environment: CASCADE_")
        assert "expected" in line
        assert "\n" not in line


@given(st.text("0123456789", min_size=1, max_size=9).filter(lambda text: int(text) > 0))
def test_numbers_of_mib_are_taken(text: str) -> None:
    check_environment({ENGINE_MEMORY: text})


@pytest.mark.parametrize("value", ["lots", "-1", "0", "4GB", "4e3", "4 096", "", "٤"])
def test_anything_else_is_not(value: str) -> None:
    with pytest.raises(ConfigError, match="expected a number of MiB, 4096 for instance"):
        check_environment({ENGINE_MEMORY: value})


def test_a_key_is_not_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        check_environment({TRACE_KEY: "secret"})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_a_misspelt_name_is_noticed_and_a_foreign_one_is_not(name: str) -> None:
    for misspelt in (name[:-1], name + "S", name[:-2] + name[-1], name[:-2] + name[-1] + name[-2]):
        with pytest.raises(ConfigError, match=f"did you mean {name}"):
            check_environment({misspelt: "x"})
    check_environment({"CASCADE_API_KEY": "x", "CASCADE_SUPPORT_URL": "x", "OTHER": "x"})


@pytest.mark.parametrize("name", [ENGINE_MEMORY, KEY_HOSTS])
def test_loading_a_graph_checks_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    path = write(tmp_path, {"m": scripted("yes")}, [{"name": "only", "ask": ["m"]}])
    monkeypatch.setenv(name, "not such a thing")
    with pytest.raises(ConfigError, match=f"environment: {name} is 'not such a thing'"):
        load_graph(path)
