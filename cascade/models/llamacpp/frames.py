"""The messages between a process and the workers of its isolated models: JSON with its length in front.

Plain data only, so neither side can run the other's code: a worker whose memory is corrupted can send a
broken frame, which ends the worker, and nothing worse.
"""

from __future__ import annotations

import asyncio
import json
import struct
from dataclasses import fields
from functools import cache
from typing import Any, cast

from pydantic import TypeAdapter

from cascade.models.base import Prompt, Reply
from cascade.policy.early_exit import EarlyExit

Frame = dict[str, Any]

MAX_BYTES = 256 * 2**20
_LENGTH = struct.Struct(">I")


def pack(frame: Frame) -> bytes:
    """Return `frame` as bytes.

    Raises:
        ValueError: it is not plain JSON, or longer than `MAX_BYTES`.
    """
    try:
        data = json.dumps(frame).encode("ascii")
    except TypeError as error:
        raise ValueError(str(error)) from error
    if len(data) > MAX_BYTES:
        raise ValueError(f"{len(data)} bytes in one message; at most {MAX_BYTES}")
    return _LENGTH.pack(len(data)) + data


async def read_frame(reader: asyncio.StreamReader) -> Frame | None:
    """Return the next frame; None at the end of the stream, even in the middle of a frame.

    Raises:
        ValueError: what came is not a frame.
    """
    try:
        (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        if length > MAX_BYTES:
            raise ValueError(f"a message of {length} bytes; at most {MAX_BYTES}")
        frame = json.loads(await reader.readexactly(length))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    if not isinstance(frame, dict):
        raise ValueError(f"expected a mapping, got {type(frame).__name__}")  # noqa: TRY004 - not a caller's bug
    return frame


def dump_prompt(prompt: Prompt) -> tuple[Frame, list[str]]:
    """Return `prompt` as plain data, and the names of its fields that cannot leave the process: callbacks.

    The rule of early exit is plain data, so it goes along; any other `stop_early` is a callback.

    Raises:
        ValueError: another field is not plain data.
    """
    calling = [field.name for field in fields(prompt) if callable(getattr(prompt, field.name))]
    left_out = {"request": {"metadata"}} | dict.fromkeys(calling, True)  # no model reads the metadata
    data = cast("Frame", _adapter(Prompt).dump_python(prompt, mode="json", exclude=left_out))
    if isinstance(prompt.stop_early, EarlyExit):
        calling.remove("stop_early")
        data["stop_early"] = prompt.stop_early.model_dump(mode="json")
    return data, calling


def load_prompt(data: Frame) -> Prompt:
    """Return the prompt that `dump_prompt` was given.

    Raises:
        ValueError: `data` is not a prompt.
    """
    rule = data.get("stop_early")
    early = None if rule is None else EarlyExit.model_validate(rule)
    return cast("Prompt", _adapter(Prompt).validate_python(data | {"stop_early": early}))


def dump_reply(reply: Reply) -> Frame:
    """Return `reply` as plain data.

    Raises:
        ValueError: its `meta` is not plain data.
    """
    return cast("Frame", _adapter(Reply).dump_python(reply, mode="json"))


def load_reply(data: Frame) -> Reply:
    """Return the reply that `dump_reply` was given, with every field as it was.

    Raises:
        ValueError: `data` is not a reply.
    """
    return cast("Reply", _adapter(Reply).validate_python(data))


@cache
def _adapter(kind: type[Prompt | Reply]) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
