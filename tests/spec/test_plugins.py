"""A package of somebody else's adds kinds: found by entry point, checked, described and run like our own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cascade.spec.registry import MODELS


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install examples/plugin into a folder of its own, without any index."""
    source, target = (tmp_path_factory.mktemp(name) for name in ("source", "target"))
    shutil.copytree(Path(__file__).parents[2] / "examples" / "plugin", source, dirs_exist_ok=True)
    command = [
        "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation",
        "--disable-pip-version-check", "--target", str(target), str(source),
    ]  # fmt: skip
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return target


def run(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run Python with the packages of `folder` installed."""
    path = os.pathsep.join([str(folder), *([given] if (given := os.environ.get("PYTHONPATH")) else [])])
    return subprocess.run(
        [sys.executable, *arguments], cwd=Path(__file__).parents[2], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": path, **variables}, timeout=120,
    )  # fmt: skip


def cascade(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; from cascade.cli.main import main; main()"
    return run(folder, "-c", code, *arguments)


@pytest.mark.parametrize(
    ("text", "answer", "by"),
    [
        ("Where is my parcel?", "delivery", "labels"),
        ("Can I get my money back?", "refund", "labels"),
        ("hello", "We will look into it.", "hedging"),
        ("My order has not come. " * 5, "We will look into it.", "hedging"),
    ],
)
def test_its_kinds_answer_judge_and_route(
    plugin: Path, tmp_path: Path, text: str, answer: str, by: str
) -> None:
    database = str(tmp_path / "traces.db")
    done = cascade(plugin, "run", "examples/plugin/graph.yaml", text, "--json", "--trace-db", database)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["status"], result["text"]) == ("accepted", answer)
    shown = cascade(plugin, "trace", "explain", "last", "--json", "--trace-db", database)
    assert f'"by": "{by}"' in shown.stdout, shown.stderr


def test_check_knows_its_keys_and_names_them(plugin: Path, tmp_path: Path) -> None:
    source = (Path(__file__).parents[2] / "examples" / "plugin" / "graph.yaml").read_text()
    graph = tmp_path / "graph.yaml"
    graph.write_text(source)
    done = cascade(plugin, "check", str(graph))
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    for old, new, message in [
        ("kind: regex", "kind: regx", "llamacpp, openai, python, scripted, regex; did you mean 'regex'?"),
        ("patterns:\n", "pattern:\n", "unknown key 'pattern'; known: "),
        ('["\\\\bparcel"', '["(parcel"', "rules.patterns.delivery.0: '(parcel' is no regular"),
        ("{short: 80}", "{shrt: 80}", "gate.max_chars.shrt: unknown candidate 'shrt'; known: short, long"),
        ("confidence: {by: labels}", "confidence: {by: logprob}", "matches patterns and writes no tokens"),
        ("accept: 0.75", "accept: 0.5", "0.5 can never fire: every confidence is at least 0.5"),
    ]:  # fmt: skip
        assert old in source
        graph.write_text(source.replace(old, new))
        done = cascade(plugin, "check", str(graph))
        assert done.returncode != 0
        assert f"{graph}:" in done.stderr
        assert message in " ".join(done.stderr.split())


def test_schema_and_tables_describe_it(plugin: Path, tmp_path: Path) -> None:
    schema = json.loads(cascade(plugin, "schema").stdout)
    models = next(iter(schema["properties"]["models"]["patternProperties"].values()))
    assert models["discriminator"]["mapping"]["regex"] == "#/$defs/RegexSettings"
    assert {"RegexSettings", "HedgingConfidence", "LengthGate", "LlamaCppSettings"} <= set(schema["$defs"])
    page = Path(__file__).parents[2] / "examples" / "plugin" / "README.md"
    copy = tmp_path / "README.md"
    shutil.copy(page, copy)
    done = run(plugin, ".ci/keys.py", str(copy))
    assert (done.returncode, copy.read_text()) == (0, page.read_text()), "run python .ci/keys.py PAGE"


def test_it_stays_light(plugin: Path) -> None:
    """Its module is imported by the check, and brings nothing heavy."""
    code = (
        "import sys; from cascade.config import load_graph; load_graph('examples/plugin/graph.yaml')\n"
        "assert 'cascade_plugin.regex' in sys.modules\n"
        "assert not {'langgraph', 'llama_cpp', 'openai', 'numpy'} & set(sys.modules)"
    )
    done = run(plugin, "-c", code)
    assert done.returncode == 0, done.stderr


def register(folder: Path, package: str, points: str, module: str = "") -> None:
    """Lay out an installed distribution with entry points, and a module of its name."""
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(points)
    (folder / f"{package}.py").write_text(module)


@pytest.mark.parametrize(
    ("points", "module", "message"),
    [
        ("x = bad:X", "", "entry point 'x' (cascade.models) of bad: bad:X cannot be loaded: AttributeError"),
        ("x = bad:X", "1 / 0", "bad:X cannot be loaded: ZeroDivisionError: division by zero; repair"),
        ("x = bad:X", "X = 1", "bad:X is not a ModelSettings; repair the package, or uninstall it"),
        (
            "x = bad:X",
            "from cascade.spec import ModelSettings\nclass X(ModelSettings):\n    pass",
            "bad:X declares no 'kind: Literal['x']'; repair the package",
        ),
        ("human = bad:X", "X = 1", "bad:X another package has a kind of this name; uninstall one of them"),
    ],
)  # fmt: skip
def test_a_broken_package_is_an_error_that_names_it(
    tmp_path: Path, points: str, module: str, message: str
) -> None:
    register(tmp_path, "bad", f"[cascade.models]\n{points}\n", module)
    done = cascade(tmp_path, "check", "graphs/support.yaml")
    assert done.returncode == 1
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_the_same_kind_registered_twice_is_one_kind(tmp_path: Path) -> None:
    """Metadata of an older installation may lie beside that of today."""
    register(tmp_path, "older", "[cascade.models]\nhuman = cascade.models.human:HumanSettings\n")
    done = cascade(tmp_path, "check", "graphs/support.yaml")
    assert (done.returncode, done.stderr) == (0, "")


def test_an_installation_without_entry_points_says_how_to_repair_it() -> None:
    code = (
        "import cascade.spec.registry as registry\n"
        "registry.entry_points = lambda group: []\n"
        "from cascade.errors import ConfigError\n"
        "try:\n    registry.MODELS.kinds()\nexcept ConfigError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "no kinds are registered as entry points 'cascade.models'" in done.stdout, done.stderr
    assert "install the package again" in done.stdout


def test_our_own_kinds_are_entry_points_too() -> None:
    assert {"cascade", "human", "llamacpp", "openai", "scripted"} <= set(MODELS.kinds())
