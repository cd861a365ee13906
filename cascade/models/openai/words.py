"""What a server says, whatever the shape that it says it in."""

from __future__ import annotations

import json
import re
from typing import Any, Final

# Members that hold a message, the most telling first.
_MESSAGES: Final = (
    "message", "detail", "error", "errors", "msg", "error_description", "description", "title", "reason",
)  # fmt: skip
_DEPTH = 8
_ITEMS = 5
_HTML = 4000  # characters of a page that are looked at
_MOST = 2000  # characters; whoever quotes cuts further


def words(said: Any, depth: int = 0) -> str:
    """Return the message in `said`: a text, HTML, JSON in a text, or any nesting of objects and lists.

    An object without a message is returned as JSON. The text is not scrubbed of secrets.
    """
    if depth > _DEPTH or said is None:
        return ""
    if isinstance(said, str):
        return _of_text(said.strip(), depth)[:_MOST]
    if isinstance(said, list):
        return "; ".join(filter(None, (words(item, depth + 1) for item in said[:_ITEMS])))[:_MOST]
    if isinstance(said, dict):
        return (_of_object(said, depth) or _json(said))[:_MOST]
    return _json(said)


def error_words(document: dict[str, Any]) -> str | None:
    """Return the server's words if `document` is an error in place of a completion, else None."""
    error = document.get("error")
    if error not in (None, "", [], {}, False):
        return words(error) if isinstance(error, str | dict | list) else words(document)
    if document.get("choices"):
        return None
    told = any(
        isinstance(document.get(name), str | list) and document[name]
        for name in ("message", "detail", "msg", "errors")
    )
    if told or "error" in (document.get("object"), document.get("type")):
        return words(document)
    return None


def error_status(document: dict[str, Any]) -> int | None:
    """Return the HTTP status that an error in a document names as its `code` or `status`, if it does."""
    error = document.get("error")
    for place in (error if isinstance(error, dict) else {}, document):
        for name in ("code", "status", "status_code"):
            code = place.get(name)
            code = int(code) if isinstance(code, str) and re.fullmatch(r"[45]\d\d", code) else code
            if type(code) is int and 400 <= code < 600:
                return code
    return None


def _of_text(text: str, depth: int) -> str:
    if text.startswith(("{", "[")):
        try:
            return words(json.loads(text), depth + 1) or text
        except (ValueError, RecursionError):
            return text
    if text.startswith("<"):
        bare = re.sub(r"(?is)<(script|style)\b.*?</\1\s*>|<!--.*?-->|<[^>]*>", " ", text[:_HTML])
        return " ".join(bare.split()) or text
    return text


def _of_object(said: dict[str, Any], depth: int) -> str:
    message = next(filter(None, (words(said.get(name), depth + 1) for name in _MESSAGES)), "")
    place = said.get("loc")
    if isinstance(place, list) and message:  # FastAPI's errors
        return f"{'.'.join(map(str, place))}: {message}"
    parameter = said.get("param")
    if isinstance(parameter, str) and message and parameter not in message:
        message = f"{parameter}: {message}"
    metadata = said.get("metadata")
    if isinstance(metadata, dict) and (raw := words(metadata.get("raw"), depth + 1)):  # OpenRouter's upstream
        message = f"{message}: {raw}" if message and raw not in message else message or raw
    return message


def _json(said: Any) -> str:
    try:
        return json.dumps(said, ensure_ascii=False, default=str)
    except (ValueError, RecursionError):
        return ""
