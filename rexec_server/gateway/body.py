"""A request's JSON body, read strictly: what two readers could understand in two ways is refused."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from flask import request
from werkzeug.exceptions import RequestEntityTooLarge

from rexec_server.gateway.problems import Problem


def read_object(limit: int) -> dict[str, Any]:
    """The body as a JSON object; an empty body is an empty object."""
    value = read(limit)
    if value is None and not request.get_data():
        return {}
    if not isinstance(value, dict):
        raise Problem(400, 'the body must be a JSON object, such as {"cmd": "echo hello"}')
    return value


def read(limit: int) -> Any:
    """The body as a JSON value; None when there is none. At most `limit` bytes."""
    # First the type, then the body: what is not JSON is not even read.
    _check_type()
    # One more than may be: of a body without a length, Werkzeug would silently leave out what is beyond.
    request.max_content_length = limit + 1
    too_large = Problem(413, f"the body is too large; at most {limit} bytes")
    try:
        data = request.get_data()
    except RequestEntityTooLarge:
        raise too_large from None
    if len(data) > limit:
        raise too_large
    return _parse(data) if data else None


def _check_type() -> None:
    """Only JSON changes anything: browsers send the other types across origins without asking."""
    if request.content_type is None and not request.content_length and "Transfer-Encoding" not in request.headers:
        return
    if request.mimetype != "application/json":
        raise Problem(415, "the body must be JSON, with the header Content-Type: application/json")


def _parse(data: bytes) -> Any:
    try:
        value = json.loads(
            data.decode(), object_pairs_hook=_without_duplicates, parse_constant=_no_constant, parse_float=_finite
        )
        # Half of a surrogate pair is JSON but no text: it could not be sent on.
        json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise Problem(400, "the JSON is nested too deeply") from None
    except UnicodeError:
        raise Problem(400, "the body is not valid UTF-8") from None
    except ValueError as error:
        raise Problem(400, f"the body is not valid JSON: {error}") from None
    return value


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise Problem(400, f"the key {key[:64]!r} stands twice in the JSON")
        found[key] = value
    return found


def _no_constant(name: str) -> NoReturn:
    raise Problem(400, f"{name} is not valid JSON")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise Problem(400, f"the number {text[:32]} is too large")
    return value
