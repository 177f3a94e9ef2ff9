"""A request's bytes as a message, at a bounded price: sizes and counts are looked at before anything else is done.

Four megabytes can be two million empty elements. Python pays for each of them, and every other call waits meanwhile.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError
from rexec.v1 import execution_service_pb2 as api

from rexec_server.core.command import MAX_ARGUMENTS, MAX_LABELS, MAX_VARIABLES
from rexec_server.core.errors import InvalidRequest

# A request without a payload: 32 labels with the longest values, in the widest characters, are 35 KB.
MAX_BYTES = 64 * 1024
# These carry a command's arguments and its input: as much as gRPC takes.
_LARGE = frozenset({"Exec", "WriteStdin"})
# The parser needs at most 20 ms for so many bytes; what is longer has its fields counted first.
_COUNTED_BYTES = 1024 * 1024
MAX_FIELDS = 24 * 1024
# There are fewer states and channels, and a repetition says nothing.
MAX_NAMED = 16

# The number of elements that each repeated field and map of a request may have.
MAX_ELEMENTS = {
    "ExecRequest": {
        "arguments": MAX_ARGUMENTS,
        "environment_variables": MAX_VARIABLES,
        "labels": MAX_LABELS,
    },
    "ListRequest": {"states": MAX_NAMED, "labels": MAX_LABELS},
    "PollRequest": {"channels": MAX_NAMED},
    "FollowRequest": {"channels": MAX_NAMED},
}

Decode = Callable[[bytes], Any]
_INPUTS: dict[str, Descriptor] = {
    method.name: method.input_type for method in api.DESCRIPTOR.services_by_name["ExecutionService"].methods
}


def bounded(method: str, decode: Decode) -> Decode:
    """Return a decoder for a method's requests, which raises InvalidRequest for what it does not take.

    method: its path, such as /rexec.v1.ExecutionService/Poll.
    """
    service, _, name = method.removeprefix("/").rpartition("/")
    descriptor = _INPUTS.get(name) if service == "rexec.v1.ExecutionService" else None
    limits = tuple(MAX_ELEMENTS.get(descriptor.name, {}).items()) if descriptor else ()
    large = descriptor is not None and name in _LARGE

    def decoded(data: bytes) -> Any:
        if len(data) > MAX_BYTES and not large:
            raise InvalidRequest("request", f"{len(data)} bytes; at most {MAX_BYTES} are taken")
        if len(data) > _COUNTED_BYTES and descriptor:
            _check_fields(data, descriptor)
        try:
            message = decode(data)
        except DecodeError:
            raise InvalidRequest("request", "is not a message of this call's type") from None
        for field, most in limits:
            count = len(getattr(message, field))
            if count > most:
                raise InvalidRequest(field, f"{count} elements; at most {most} are taken")
        return message

    return decoded


def _check_fields(data: bytes, descriptor: Descriptor) -> None:
    """Raise InvalidRequest if there are too many fields on the wire, elements and unknown fields among them."""
    counts: Counter[int] = Counter()
    position, left = 0, MAX_FIELDS
    try:
        while position < len(data):
            if data[position] & 0x87 == 2 and data[position + 1] < 0x80:  # of low number, and short: as most are
                number, position = data[position] >> 3, position + 2 + data[position + 1]
            else:
                number, position = _skipped(data, position)
            counts[number] += 1
            left -= 1
            if left < 0:
                raise _too_many(counts, descriptor)
    except IndexError:
        pass  # it is not whole: the parser says so


def _too_many(counts: Counter[int], descriptor: Descriptor) -> InvalidRequest:
    number, count = counts.most_common(1)[0]
    field = descriptor.fields_by_number.get(number)
    if field is None:
        return InvalidRequest("request", f"{count} times field {number}, which this call does not have")
    most = MAX_ELEMENTS.get(descriptor.name, {}).get(field.name, 1)
    return InvalidRequest(field.name, f"{count} elements or more; at most {most} are taken")


def _skipped(data: bytes, position: int) -> tuple[int, int]:
    """Return a field's number, and where the next one begins. IndexError where the bytes end before."""
    tag, position = _varint(data, position)
    match tag & 7:
        case 0:
            _, position = _varint(data, position)
        case 1:
            position += 8
        case 2:
            length, position = _varint(data, position)
            position += length
        case 5:
            position += 4
    return tag >> 3, position  # a group's begin and end are fields of their own here


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = data[position]
    position += 1
    if value < 0x80:
        return value, position
    value &= 0x7F
    for shift in range(7, 70, 7):
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise IndexError("a varint has at most 10 bytes")
