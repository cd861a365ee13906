"""What binds the form of a local model's answers: a grammar, or a JSON Schema that is turned into one."""

from __future__ import annotations

import json
from pathlib import Path

from cascade.config.references import existing_file
from cascade.errors import ConfigError
from cascade.formats.gbnf import MAX_BYTES, check_grammar
from cascade.formats.json_grammar import schema_grammar
from cascade.spec.schema import LlamaCppModel


def resolve_grammar(model: LlamaCppModel, base: Path) -> str | None:
    """Return the GBNF grammar of the model's answers, or None if they are free.

    Args:
        model: its settings.
        base: the graph's folder, where relative paths start.

    Raises:
        ConfigError: a file is missing or unreadable, the grammar or the schema cannot be used, or both are
            given.
    """
    if model.grammar is not None and model.output_schema is not None:
        raise ConfigError("'grammar' and 'output_schema' exclude each other; drop one")
    if model.grammar is not None:
        text = model.grammar if "::=" in model.grammar else _read(model.grammar, base, "grammar")
        check_grammar(text)
        return text
    if model.output_schema is None:
        return None
    schema: object = model.output_schema
    if isinstance(schema, str):
        try:
            schema = json.loads(_read(schema, base, "JSON Schema"))
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"JSON Schema {model.output_schema!r} is not JSON: {error}") from error
    return schema_grammar(schema)


def _read(path: str, base: Path, what: str) -> str:
    file = existing_file(path, base, what)
    try:
        if file.stat().st_size > MAX_BYTES:
            raise ConfigError(
                f"{what} {path!r} has {file.stat().st_size} bytes; at most {MAX_BYTES} are taken"
            )
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{what} {path!r} cannot be read: {error}") from error
