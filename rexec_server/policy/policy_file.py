"""A policy file, read: its tables, or one line that says what is wrong where."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from rexec_server.policy.files import PolicyError, read_trusted
from rexec_server.policy.rule_table import PolicyTable
from rexec_server.policy.slots import SLOT_TYPES

# What pydantic calls things, and what people who write TOML do.
_WORDS = (("valid tuple", "list"), ("Tuple", "List"), ("valid dictionary", "table"), (" after validation", ""))
_SLOT_TABLES = ("slots", "environment_slots")


def read(path: str) -> PolicyTable:
    """PolicyError, with the first of what is wrong."""
    try:
        return _read(path)
    except RecursionError:
        raise PolicyError(f"{path}: something in it is nested too deeply") from None


def _read(path: str) -> PolicyTable:
    try:
        fields = tomllib.loads(read_trusted(path).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PolicyError(f"{path}: {error}") from error
    if not fields.get("rule"):
        raise PolicyError(f"{path} has no [[rule]], so nothing could be run")
    try:
        return PolicyTable.model_validate(fields)
    except ValidationError as error:
        raise PolicyError(f"{path}: {_describe(error.errors()[0], fields)}") from error


def _describe(problem: Any, fields: dict[str, Any]) -> str:
    kind, place = problem["type"], list(problem["loc"])
    if kind == "missing":
        missing = place.pop()
        return f"{_name(place, fields)}{missing} is missing"
    if kind in ("union_tag_not_found", "union_tag_invalid"):
        return f"{_name(place, fields)}type must be one of {', '.join(SLOT_TYPES)}"
    message = str(problem["msg"]).removeprefix("Value error, ")
    for python, toml in _WORDS:
        message = message.replace(python, toml)
    return _name(place, fields) + message


def _name(place: Sequence[Any], fields: dict[str, Any]) -> str:
    """As people would say where: rule 'tail-log': slots.lines.min:"""
    where, place = "", list(place)
    if len(place) > 1 and place[0] == "rule":
        where, place = _name_rule(place[1], fields), place[2:]
    if len(place) > 2 and place[0] in _SLOT_TABLES:
        del place[2]  # the type by which a slot's table was chosen: it is in the file, but not as a key
    if len(place) > 1 and place[0] == "test":
        where, place = f"{where}test {place[1] + 1}: ", place[2:]
    key = ".".join(str(part) for part in place)
    return f"{where}{key}: " if key else where


def _name_rule(index: int, fields: dict[str, Any]) -> str:
    rules = fields["rule"]
    rule = rules[index] if isinstance(rules, list) else None
    name = rule.get("name") if isinstance(rule, dict) else None
    return f"rule {name!r}: " if isinstance(name, str) else f"rule {index + 1}: "
