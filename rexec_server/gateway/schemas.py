"""JSON Schema of the contract's messages, made from their descriptors: it cannot differ from what is served."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

Schema = dict[str, Any]

_WELL_KNOWN: dict[str, Schema] = {
    "google.protobuf.Duration": {"type": "string", "pattern": r"^[0-9]{1,9}(\.[0-9]{1,9})?s$", "examples": ["30s"]},
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
}
# In a query string the unit may be left out.
_QUERY_DURATION: Schema = {"type": "string", "pattern": r"^[0-9]{1,9}(\.[0-9]{1,9})?s?$", "examples": ["30s"]}
_SMALL = {FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1), FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1)}
_LARGE = {FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1), FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1)}
# Proto3 JSON takes a number as a string too.
_DIGITS: Schema = {"type": "string", "pattern": "^[0-9]{1,9}$"}
_TEXT: Schema = {"type": "string", "pattern": "^[^\\u0000]*$"}

# What a descriptor does not say, but the contract does.
EXEC_ID: Schema = {"type": "string", "pattern": "^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$"}
_KNOWN_RULES: dict[str, Schema] = {
    "rexec.v1.ExecRequest.exec_id": EXEC_ID,
    "rexec.v1.ExecRequest.working_directory": {"type": "string", "pattern": "^(/[^\\u0000]*)?$"},
}


def given(*kinds: Descriptor) -> dict[str, Schema]:
    """Schemas of messages that are given, by name, with all that they contain."""
    found: dict[str, Schema] = {}
    for kind in kinds:
        _add(kind, found)
    return found


def taken(kind: Descriptor, without: tuple[str, ...] = ()) -> Schema:
    """Schema of a message that is taken, as json_format takes it; fields in `without` come another way."""
    properties = {
        field.json_name: _or_null(_field(field, {}, asked=True)) for field in kind.fields if field.name not in without
    }
    return {"type": "object", "properties": properties, "additionalProperties": False}


def parameter(field: FieldDescriptor) -> Schema:
    """Schema of a field that stands in a query string."""
    if field.message_type is not None:
        return _QUERY_DURATION
    return _field(field, {}, asked=True, query=True)


def _add(kind: Descriptor, found: dict[str, Schema]) -> Schema:
    if kind.name not in found:
        found[kind.name] = schema = {"type": "object", "additionalProperties": False}
        schema["properties"] = {field.json_name: _field(field, found, asked=False) for field in kind.fields}
        always = [field.json_name for field in kind.fields if not field.has_presence]
        if always:
            schema["required"] = always
    return {"$ref": f"#/components/schemas/{kind.name}"}


def _field(field: FieldDescriptor, found: dict[str, Schema], *, asked: bool, query: bool = False) -> Schema:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        value = field.message_type.fields_by_name["value"]
        return {"type": "object", "additionalProperties": _single(value, found, asked=asked, query=query)}
    single = _single(field, found, asked=asked, query=query)
    return {"type": "array", "items": single} if field.is_repeated else single


def _single(field: FieldDescriptor, found: dict[str, Schema], *, asked: bool, query: bool) -> Schema:
    if asked and field.full_name in _KNOWN_RULES:
        return _KNOWN_RULES[field.full_name]
    if field.message_type is not None:
        return _message(field.message_type, found, asked=asked)
    if field.enum_type is not None:
        return _enum(field.enum_type, asked=asked and not query)
    return _scalar(field, asked=asked, query=query)


def _message(kind: Descriptor, found: dict[str, Schema], *, asked: bool) -> Schema:
    if kind.full_name in _WELL_KNOWN:
        return _WELL_KNOWN[kind.full_name]
    return taken(kind) if asked else _add(kind, found)


def _enum(kind: EnumDescriptor, *, asked: bool) -> Schema:
    names: Schema = {"type": "string", "enum": [value.name for value in kind.values]}
    if asked:
        return {"anyOf": [names, {"type": "integer", "enum": [value.number for value in kind.values]}]}
    return names


def _scalar(field: FieldDescriptor, *, asked: bool, query: bool) -> Schema:
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return {"type": "boolean"}
    if kind in _SMALL or kind in _LARGE:
        return _number(kind, asked=asked, query=query)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return {
            "type": "string",
            "contentEncoding": "base64",
            "pattern": "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$",
        }
    return _TEXT if asked and not query else {"type": "string"}


def _number(kind: int, *, asked: bool, query: bool) -> Schema:
    low, high = (_SMALL | _LARGE)[kind]
    number: Schema = {"type": "integer", "minimum": low, "maximum": high}
    if query:
        return number
    if asked:
        return {"anyOf": [number, _DIGITS]}
    return number if kind in _SMALL else {"type": "string", "pattern": "^-?[0-9]+$"}


def _or_null(schema: Schema) -> Schema:
    """Null is the same as leaving a field out."""
    return {"anyOf": [schema, {"type": "null"}]}
