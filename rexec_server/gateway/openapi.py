"""The OpenAPI 3.1 document: the routes by hand, the messages from the contract itself."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

from google.protobuf.descriptor import Descriptor
from rexec.v1 import execution_pb2 as pb
from rexec.v1 import execution_service_pb2 as api

from rexec_client.version import __version__
from rexec_server.gateway import schemas
from rexec_server.gateway.openapi_modes import MODE_ANSWERS, MODE_ERROR, mode_paths
from rexec_server.gateway.openapi_parts import ANY_OBJECT, json_content, ok, operation, path_parameter, ref, stream
from rexec_server.gateway.schemas import Schema

_BEARER = "A token: a compact JWE made with the caller's key. With --dev the caller's name, and none is `dev`."


@functools.cache
def document() -> dict[str, Any]:
    """The whole document."""
    messages = [getattr(api, f"{name}Response").DESCRIPTOR for name in _MESSAGES]
    components = schemas.given(pb.Execution.DESCRIPTOR, *messages)
    components["ExecResponse"]["properties"] |= {"missingBytes": _MISSING}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "rexec",
            "version": __version__,
            "description": "Runs commands for callers elsewhere. /v1 is rexec.v1.ExecutionService in proto3 JSON.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{}, {"bearer": []}],
        "paths": {**_v1_paths(), **mode_paths()},
        "components": {
            "schemas": {**components, "Error": _ERROR, "ModeError": MODE_ERROR, **MODE_ANSWERS},
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "description": _BEARER}},
        },
    }


_MESSAGES = ("Exec", "Poll", "Acknowledge", "List", "Signal", "Cancel", "WriteStdin", "Delete", "GetServerInfo")

_ERROR: Schema = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "description": "google.rpc.Status, as AIP-193 writes it",
            "required": ["code", "status", "message", "details"],
            "properties": {
                "code": {"type": "integer"},
                "status": {"type": "string"},
                "message": {"type": "string"},
                "details": {"type": "array", "items": ANY_OBJECT},
            },
        }
    },
}
_MISSING: Schema = {
    "type": "string",
    "pattern": "^[1-9][0-9]*$",
    "description": "bytes of the output from the start that are no longer kept; left out when there are none",
}


def _query(kind: Descriptor, without: tuple[str, ...] = ()) -> list[Schema]:
    return [
        {"name": field.json_name, "in": "query", "schema": schemas.parameter(field)}
        for field in kind.fields
        if field.name not in ("exec_id", "text", *without)
    ]


_ENCODING: Schema = {
    "name": "encoding",
    "in": "query",
    "description": "bytes as base64, which is exact, or as text, for people",
    "schema": {"type": "string", "enum": ["base64", "text"]},
}
_LABEL: Schema = {
    "name": "label",
    "in": "query",
    "description": "NAME=VALUE; may be repeated",
    "schema": {"type": "array", "items": {"type": "string", "pattern": "^[a-z0-9._/-]{1,63}=[a-z0-9]{0,255}$"}},
}
_GROUP: Schema = {
    "name": "exclusiveGroup",
    "in": "query",
    "required": True,
    "description": "the group of which the caller's newest execution is meant",
    "schema": {"type": "string", "minLength": 1},
}
_LAST_EVENT: Schema = {
    "name": "Last-Event-ID",
    "in": "header",
    "schema": {"type": "integer", "minimum": 0, "maximum": 2**63 - 1},
}


def _v1_paths() -> dict[str, Any]:
    one = "/v1/executions/{execId}"
    by_id = [path_parameter("execId", schemas.EXEC_ID)]
    get = _query(api.GetRequest.DESCRIPTOR, ("exclusive_group",))
    poll = [*_query(api.PollRequest.DESCRIPTOR, ("exclusive_group",)), _ENCODING]
    follow = [*_query(api.FollowRequest.DESCRIPTOR, ("exclusive_group",)), _ENCODING, _LAST_EVENT]
    started = {
        **ok(ref("ExecResponse"), 201),
        "200": {"description": "It was there.", "content": json_content(ref("ExecResponse"))},
    }
    return {
        "/v1/info": {"get": operation("info", "GetServerInfo", ok(ref("GetServerInfoResponse")))},
        "/v1/executions": {
            "get": operation(
                "list", "List: newest first", ok(ref("ListResponse")),
                [*_query(api.ListRequest.DESCRIPTOR, ("labels",)), _LABEL],
            ),
            "post": operation(
                "start", "Exec: start a command, once", started, [_ENCODING],
                _either(schemas.taken(api.ExecRequest.DESCRIPTOR)),
            ),
        },
        one: {
            "parameters": by_id,
            "get": operation("get", "The execution", ok(ref("Execution")), get),
            "delete": operation("delete", "Delete: forget it", ok(ref("DeleteResponse"))),
        },
        f"{one}/output": {
            "parameters": by_id,
            "get": operation(
                "output", "Poll: the execution and output", ok(ref("PollResponse")),
                poll,
            ),
        },
        f"{one}/follow": {
            "parameters": by_id,
            "get": operation(
                "follow", "Follow: output as it appears", stream(),
                follow,
            ),
        },
        f"{one}/acknowledge": {
            "parameters": by_id,
            "post": _post("acknowledge", "Acknowledge: how much a holder has used up", "Acknowledge", required=True),
        },
        f"{one}/signal": {"parameters": by_id, "post": _post("signal", "Signal: send one", "Signal", required=True)},
        f"{one}/cancel": {"parameters": by_id, "post": _post("cancel", "Cancel: end it and all it started", "Cancel")},
        f"{one}/stdin": {
            "parameters": by_id,
            "post": _post("stdin", "WriteStdin: at an offset", "WriteStdin", [_ENCODING], required=True),
        },
        "/v1/newest": {
            "get": operation("newest", "Get, of a group's newest execution", ok(ref("Execution")), [_GROUP, *get]),
        },
        "/v1/newest/output": {
            "get": operation(
                "newest_output", "Poll, of a group's newest execution", ok(ref("PollResponse")), [_GROUP, *poll]
            ),
        },
        "/v1/newest/follow": {
            "get": operation("newest_follow", "Follow, of a group's newest execution", stream(), [_GROUP, *follow]),
        },
    }  # fmt: skip


def _either(schema: Schema) -> Schema:
    """A command is arguments or a shell line: one of the two."""
    arguments = {"required": ["arguments"], "properties": {"arguments": {"type": "array", "minItems": 1}}}
    shell = {"required": ["shell"], "properties": {"shell": {"type": "string", "minLength": 1}}}
    return {**schema, "oneOf": [arguments, shell]}


def _post(
    name: str, summary: str, message: str, parameters: Iterable[Schema] = (), *, required: bool = False
) -> dict[str, Any]:
    kind = getattr(api, f"{message}Request").DESCRIPTOR
    body = schemas.taken(kind, without=("exec_id",))
    return operation(name, summary, ok(ref(f"{message}Response")), parameters, body, body_required=required)
