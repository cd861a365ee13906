"""Nobody asks which kind a model, a confidence or a gate is: differences are attributes of its settings."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import cascade
from cascade.spec import ConfidenceSettings, GateSettings, ModelSettings
from cascade.spec.registry import CONFIDENCES, GATES, MODELS

PACKAGE = Path(cascade.__file__).parent
KINDS = {
    kind.__name__: kind.__module__
    for registry in (MODELS, CONFIDENCES, GATES)
    for kind in registry.kinds().values()
    if kind.__module__.startswith("cascade.")
}
NAMES = "|".join({*MODELS.kinds(), *CONFIDENCES.kinds(), *GATES.kinds()})
# A policy's features have kinds of their own.
COMPARED = re.compile(rf"""(?<!feature)\.(?:kind|by) (?:==|!=|in) [(\["']*(?:{NAMES})\b""")


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(("cascade", *path.relative_to(PACKAGE).with_suffix("").parts))
        yield name.removesuffix(".__init__"), path


def test_a_kinds_settings_are_named_in_its_own_module_alone() -> None:
    wrong = []
    for name, path in modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for alias in node.names if isinstance(node, ast.ImportFrom) else ():
                home = KINDS.get(alias.name)
                if home is not None and not f"{name}.".startswith(f"{home}."):
                    wrong.append(f"{name} imports {alias.name}")
    assert len(KINDS) >= 10
    assert wrong == []


def test_nobody_compares_a_kinds_name() -> None:
    assert COMPARED.search('if model.kind == "human":')
    found = [
        f"{name}: {line.strip()}"
        for name, path in modules()
        for line in path.read_text(encoding="utf-8").splitlines()
        if COMPARED.search(line)
    ]
    assert found == []


@pytest.mark.parametrize(("registry", "base"), [(MODELS, ModelSettings), (CONFIDENCES, ConfidenceSettings),
                                                (GATES, GateSettings)])  # fmt: skip
def test_every_kind_extends_its_base_and_bears_its_name(registry: object, base: type) -> None:
    for name, kind in registry.kinds().items():  # type: ignore[attr-defined]
        assert issubclass(kind, base)
        assert kind.model_fields[registry.key].annotation.__args__ == (name,)  # type: ignore[attr-defined]


def test_the_base_of_models_reports_nothing_costs_nothing_and_is_no_person() -> None:
    class Bare(ModelSettings):
        kind: str = "bare"

    bare = Bare()
    facts = bare.resolve(Path())
    assert (facts.labels, facts.unknown, facts.grammar) == (None, False, None)
    assert bare.inspect(Path()) == (facts, [])
    assert (bare.local, bare.is_person, bare.token_price(), bare.inner_graph()) == (False, False, None, None)
    assert "no such evidence" in (bare.lacks("tokens", "m", facts) or "")
    assert bare.fingerprint(Path(), facts) != Bare(tier="opus").fingerprint(Path(), facts)
    with pytest.raises(NotImplementedError, match="'bare' cannot be built"):
        bare.build("m", Path(), facts)
