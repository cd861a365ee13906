"""The wheel, installed into empty environments: what it holds, and what works with and without extras."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from pathlib import Path

import pytest
from installing import Environment, build_wheel, environment_with, link_dependencies, share_all
from loopback import Loopback, stream

from cascade.extras import DISTRIBUTION

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
REMOTE = """\
name: remote
models:
  big: {{kind: openai, tier: opus, model: gpt-4.1, url: "{url}", key_env: REMOTE_KEY, logprobs: false}}
stages: [{{name: only, ask: [big]}}]
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def full(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with the wheel and all packages of the one that runs the tests."""
    made = environment_with(wheel, tmp_path_factory.mktemp("full") / "env")
    share_all(made)
    return made


@pytest.fixture(scope="module")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """What `pip install cascade-moe` gives: the wheel and the dependencies it declares, without any extra."""
    made = environment_with(wheel, tmp_path_factory.mktemp("bare") / "env")
    linked = {name.lower().replace("_", "-") for name in link_dependencies(made, DISTRIBUTION)}
    assert {"langgraph", "openai", "sqlalchemy"} <= linked
    assert not {"llama-cpp-python", "numpy", "scipy", "fastapi", "jinja2"} & linked
    return made


def test_the_wheel_holds_experts_graphs_and_licences(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert wheel.name.startswith("cascade_moe-")
    assert {name.split("/")[0].split("-")[0] for name in names} == {"cascade", "cascade_moe"}
    graphs = sorted(
        path.relative_to(ROOT).as_posix() for path in (ROOT / "graphs").rglob("*") if path.is_file()
    )
    assert sorted(name for name in names if name.startswith("cascade/graphs/")) == [
        f"cascade/{g}" for g in graphs
    ]
    experts = {f"cascade/experts/{path.name}" for path in (ROOT / "cascade" / "experts").glob("*.gguf")}
    assert experts
    assert experts <= set(names)
    assert {"cascade/py.typed", "cascade/serve/templates/base.html"} <= set(names)
    assert sum(name.endswith(("licenses/LICENSE", "licenses/NOTICE")) for name in names) == 2


def test_the_readmes_commands_and_example_run_from_another_folder(full: Environment, tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp", reason="needs the extra local")
    blocks = BLOCK.findall((ROOT / "README.md").read_text())
    shutil.copy(ROOT / "examples" / "helpdesk.csv", tmp_path)
    for kind, text in blocks:
        lines = [line for line in text.splitlines() if not line.startswith(("make ", "pip "))]
        code = "\n".join(lines)
        command = ["bash", "-euo", "pipefail", "-c", code] if kind == "bash" else ["python", "-c", code]
        done = full.run(*command, cwd=tmp_path)
        assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
        if kind == "python":
            assert done.stdout.startswith("accepted plug_type ")
    assert [kind for kind, _ in blocks].count("python") == 1
    where = full.run("python", "-c", "import cascade; print(cascade.__file__)", cwd=tmp_path)
    assert Path(where.stdout.strip()).is_relative_to(full.packages)


def test_without_extras_it_imports_checks_and_draws(bare: Environment, tmp_path: Path) -> None:
    code = "import cascade, importlib.util as u; print(cascade.__file__, u.find_spec('llama_cpp'))"
    done = bare.run("python", "-c", code, cwd=tmp_path)
    assert done.stdout == f"{bare.packages / 'cascade' / '__init__.py'} None\n", done.stderr
    assert re.fullmatch(r"cascade \d+\.\d+\.\d+\n", bare.run("cascade", "--version", cwd=tmp_path).stdout)
    for name in ("support", "desk", "assistant"):
        copied = bare.run("cascade", "init", name, "--into", "graphs", cwd=tmp_path)
        assert copied.returncode == 0, copied.stderr
        checked = bare.run("cascade", "check", f"graphs/{name}.yaml", cwd=tmp_path)
        assert checked.stdout.startswith(f"ok: {name}"), checked.stderr
    drawn = bare.run("cascade", "draw", "graphs/support.yaml", "--format", "svg", cwd=tmp_path)
    assert drawn.stdout.startswith("<svg"), drawn.stderr


def test_without_extras_a_graph_of_remote_models_runs(
    bare: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REMOTE_KEY", "k")
    with Loopback() as server:
        server.answers = [stream(["Paris"])]
        (tmp_path / "remote.yaml").write_text(REMOTE.format(url=server.url))
        done = bare.run("cascade", "run", "remote.yaml", "Capital of France?", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["text"] == "Paris"
    explained = bare.run("cascade", "trace", "explain", "last", cwd=tmp_path)
    assert "Answer: `Paris`" in explained.stdout, explained.stderr


def test_without_extras_a_local_model_is_an_error_with_the_command_to_run(
    bare: Environment, tmp_path: Path
) -> None:
    bare.run("cascade", "init", "support", cwd=tmp_path)
    done = bare.run("cascade", "run", "support.yaml", "hello", cwd=tmp_path)
    advice = "model 'nano' (kind llamacpp) needs llama_cpp; pip install 'cascade-moe[local]'"
    assert (done.returncode, done.stderr) == (1, f"error: {advice}\n")
