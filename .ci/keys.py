"""Writes the tables of keys in docs/graph.md from the schema: `python .ci/keys.py`; a test compares them.

A package that adds kinds names its own page: `python .ci/keys.py README.md`, with the package installed.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from cascade.cli.schema import json_schema

PAGE = Path(__file__).parents[1] / "docs" / "graph.md"
# Keys that have no heading of their own in the page.
_PLACES = {
    "stage": "stages", "daybudgets": "budgets", "accountbudget": "budgets", "breakerconfig": "breaker",
    "deployment": "kind-openai",
}  # fmt: skip
_TABLE = re.compile(r"(<!-- keys: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def rendered(page: str) -> str:
    """Return `page` with every table of keys brought up to date."""
    schema = json_schema()
    parts = {schema["title"]: schema, **schema["$defs"]}
    return _TABLE.sub(lambda match: match[1] + _table(parts[match[2]]) + match[3], page)


def _table(part: dict[str, Any]) -> str:
    required = part.get("required", [])
    lines = ["| key | value | default | meaning |", "|---|---|---|---|"]
    for key, value in part["properties"].items():
        default = "**required**" if key in required else _default(value.get("default"))
        meaning = value.get("description", "").replace("|", "\\|").replace("\n", " ")
        lines.append(f"| `{key}` | {_kind(value)} | {default} | {meaning} |")
    return "\n".join(lines) + "\n"


def _default(value: Any) -> str:
    if value is None or value in ([], {}):
        return ""
    words = {True: "true", False: "false"}
    return f"`{words[value] if isinstance(value, bool) else value}`" if not isinstance(value, dict) else ""


def _kind(value: Any) -> str:
    """Say in a few words what a value may be."""
    if value in (True, {}):  # any JSON value
        return "anything"
    if "const" in value:
        return f"`{str(value['const']).lower() if isinstance(value['const'], bool) else value['const']}`"
    if "enum" in value:
        return ", ".join(f"`{choice}`" for choice in value["enum"])
    if "$ref" in value:
        name = value["$ref"].rsplit("/", 1)[-1].lower()
        return f"[{name}](#{_PLACES.get(name, name)})"
    if "discriminator" in value:
        key, kinds = value["discriminator"]["propertyName"], value["discriminator"]["mapping"]
        return f"mapping with `{key}`: " + ", ".join(f"`{kind}`" for kind in kinds)
    options = value.get("anyOf")
    if options:
        kinds = dict.fromkeys(_kind(option) for option in options if option.get("type") != "null")
        return " or ".join(kinds)
    if value["type"] == "array":
        return f"list of {_kind(value['items'])}"
    if value["type"] == "object":
        items = value.get("additionalProperties") or next(iter(value["patternProperties"].values()))
        return "mapping" if items is True else f"mapping of name to {_kind(items)}"
    return _bounded(value)


def _bounded(value: dict[str, Any]) -> str:
    words = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}
    if "pattern" in value:
        return "name"
    word = words[value["type"]]
    low, high = value.get("minimum"), value.get("maximum")
    if low is not None and high is not None:
        return f"{word} {low:g} … {high:g}"
    if low is not None:
        return f"{word} ≥ {low:g}"
    if "exclusiveMinimum" not in value:
        return word
    return f"{word} > {value['exclusiveMinimum']:g}" + (f" … {high:g}" if high is not None else "")


if __name__ == "__main__":
    page = Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE
    text = page.read_text(encoding="utf-8")
    page.write_text(rendered(text), encoding="utf-8")
    sys.exit(rendered(text) != text and f"{page} was out of date and has been updated")
