"""Messages of the gRPC contract as proto3 JSON, and back."""

from __future__ import annotations

import base64
import re
from collections.abc import Collection
from typing import Any, TypeVar

from flask import request
from google.protobuf import json_format
from google.protobuf.message import Message

from rexec_server.gateway.problems import Problem

MessageT = TypeVar("MessageT", bound=Message)

# The most that a field of the contract takes: arguments.
MAX_ELEMENTS = 16_384

# The name that protobuf's own messages have in its complaints is of no help to a caller.
_COMPLAINT = re.compile(r"^Failed to parse (\w+) field: |\.$")


def to_json(message: Message) -> dict[str, Any]:
    """Proto3 JSON: camelCase names, 64-bit numbers as strings, bytes as base64; zeros and empty lists are written."""
    return json_format.MessageToDict(message, always_print_fields_with_no_presence=True)


def from_body(kind: type[MessageT], given: dict[str, Any], path: dict[str, str] | None = None) -> MessageT:
    """A message from a JSON body; the fields in `path` are taken from there and may not stand in the body too."""
    message = kind()
    for name in path or {}:
        if given.keys() & {name, _camel(name)}:
            raise Problem(400, f"{_camel(name)} stands in the path, and not in the body too")
    return _parse(message, given | (path or {}))


def from_query(kind: type[MessageT], path: dict[str, str], besides: Collection[str] = ()) -> MessageT:
    """A message from the query string. Names in `besides` are read by somebody else."""
    message = kind()
    fields = {alias: field for field in message.DESCRIPTOR.fields for alias in (field.json_name, field.name)}
    given: dict[str, Any] = dict(path)
    for name, values in request.args.lists():
        field = fields.get(name)
        if name in besides:
            continue
        if field is None or field.name in path:
            raise Problem(400, f"there is no parameter {name[:64]!r} here")
        given[field.name] = _from_text(field, values)
    return _parse(message, given)


def check_counts(given: dict[str, Any]) -> None:
    """Raise Problem for a list or object with more elements than any field takes; the server knows each field's limit.

    Looked at before anything is done with the elements, as each costs time that other requests wait for.
    """
    for name, value in given.items():
        if isinstance(value, list | dict) and len(value) > MAX_ELEMENTS:
            raise Problem(400, f"{name[:64]} has {len(value)} elements; at most {MAX_ELEMENTS} are taken")


def wants_text() -> bool:
    """`?encoding=text`: bytes are given, and taken, as text. Otherwise base64, which is exact."""
    encoding = request.args.get("encoding", "base64")
    if encoding not in ("base64", "text"):
        raise Problem(400, "encoding is base64 or text")
    return encoding == "text"


def encode_text(given: dict[str, Any], name: str) -> dict[str, Any]:
    """With `?encoding=text`, a bytes field that was given as text, as proto3 JSON has it."""
    if not wants_text():
        return given
    encoded = {
        key: base64.b64encode(value.encode()).decode()
        if key in (name, _camel(name)) and isinstance(value, str)
        else value
        for key, value in given.items()
    }
    return encoded


def _parse(message: MessageT, given: dict[str, Any]) -> MessageT:
    check_counts(given)
    try:
        json_format.ParseDict(given, message)
    except (json_format.ParseError, ValueError, TypeError, RecursionError, OverflowError) as error:
        raise Problem(400, f"the request is not as it should be: {_COMPLAINT.sub('', str(error))[:300]}") from None
    return message


def _from_text(field: Any, values: list[str]) -> Any:
    if field.is_repeated:
        return values
    if len(values) > 1:
        raise Problem(400, f"{field.json_name} is given twice")
    if field.message_type is not None:  # the only messages that stand in a query are durations
        return values[0] if values[0].endswith("s") else f"{values[0]}s"
    return values[0]


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.title() for word in rest)
