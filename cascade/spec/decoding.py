"""Which settings of decoding decide a model's answers, for its fingerprint."""

from __future__ import annotations

from collections.abc import Callable

from cascade.spec.schema import LlamaCppModel, Prompted

_ALL = ("top_p", "stop")
_LOCAL = ("min_p", "label_scoring", "examples", "example_temperature")
_FILES = ("grammar", "output_schema", "lora")


def decoding_settings(model: Prompted, hashed: Callable[[str, str], str]) -> dict[str, object]:
    """Return the settings that are not at their default, which leave a fingerprint as it was before them.

    Args:
        model: a model that reads a prompt.
        hashed: returns the hash of a file, given its path in the graph and the key that names it.
    """
    local = isinstance(model, LlamaCppModel)
    fields = type(model).model_fields
    found: dict[str, object] = {
        key: value
        for key in (*_ALL, *(_LOCAL if local else ()))
        if (value := getattr(model, key)) != fields[key].default
    }
    for key in _FILES if local else ():
        value = getattr(model, key)
        if value is not None:
            file = isinstance(value, str) and "::=" not in value
            found[key] = hashed(value, key) if file else value
    return found
