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
from rexec_server.gateway.schemas import Schema

_CODES = {
    400: "The request is not as it should be, or the execution is not in the state that it needs.",
    401: "No credential, or not a good one.",
    403: "Not allowed, or asked by a page of another origin.",
    404: "There is none, or it is another caller's: the two look alike.",
    405: "Not with this method; Allow says with which.",
    409: "The id, or the token, has started another command.",
    413: "The body is too large.",
    415: "The body is not application/json.",
    429: "A limit is reached; Retry-After says when to try again.",
    500: "A mistake of the gateway.",
    502: "A mistake of the server.",
    503: "The server does not answer, or all streams are taken; Retry-After says when to try again.",
    504: "No answer in time.",
}
_STREAM = (
    "Server-Sent Events. Each is named as its field of FollowResponse (snapshot, output, gap, end), with that field's "
    "message as data and the resume point as id; heartbeats are comments; a stream that cannot go on ends with the "
    "event `failure`. A stream without `end` is unfinished: ask again with the last id in Last-Event-ID. A gap has how "
    "many bytes are no longer kept, and the end all of those before it, as `missingBytes` (below /api `missing_bytes`)"
    "; where nothing is missing, the end says nothing of it."
)
_UUID: Schema = {
    "type": "string",
    "pattern": "^[A-Za-z0-9_~:@+=-][A-Za-z0-9._~:@+=-]{0,4095}$",
    "description": "The credential: with --dev the caller's name, otherwise a token. A token starts one command: asked "
    "again, exec answers with the same exec_id. Or `-` beside an Authorization header, which then is the credential; "
    "beside any other uuid that header must say the same.",
}
_BEARER = "A token: a compact JWE made with the caller's key. With --dev the caller's name, and none is `dev`."
_ANY_OBJECT: Schema = {"type": "object"}


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
        "paths": {**_v1_paths(), **_mode_paths()},
        "components": {
            "schemas": {**components, "Error": _ERROR, "ModeError": _MODE_ERROR, **_MODE_ANSWERS},
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "description": _BEARER}},
        },
    }


_MESSAGES = ("Exec", "Poll", "List", "Signal", "Cancel", "WriteStdin", "Delete", "GetServerInfo")

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
                "details": {"type": "array", "items": _ANY_OBJECT},
            },
        }
    },
}
_MODE_ERROR: Schema = {
    "type": "object",
    "required": ["mode", "status", "error"],
    "properties": {"mode": {"type": "string"}, "status": {"const": "error"}, "error": {"type": "string"}},
}


def _answer(mode: str, states: list[str], **more: Schema) -> Schema:
    properties = {"mode": {"const": mode}, "status": {"enum": states}, **more}
    return {"type": "object", "required": ["mode", "status"], "properties": properties}


_STRING: Schema = {"type": "string"}
_INTEGER: Schema = {"type": "integer"}
_COUNT: Schema = {"type": "integer", "minimum": 1}
_MISSING: Schema = {
    "type": "string",
    "pattern": "^[1-9][0-9]*$",
    "description": "bytes of the output from the start that are no longer kept; left out when there are none",
}
_MODE_ANSWERS: dict[str, Schema] = {
    "ExecAnswer": _answer("exec", ["accepted", "busy"], exec_id=_STRING),
    "PollAnswer": _answer(
        "poll", ["running", "finished"], output=_STRING, exec_id=_STRING, exit_code=_INTEGER, signal=_INTEGER,
        error=_STRING, reason=_STRING, output_complete={"const": False},
        omitted_bytes={**_COUNT, "description": "bytes before the output that are kept, and too many for one answer"},
        missing_bytes={**_COUNT, "description": "bytes since the last poll that are no longer kept"},
        waiting={"enum": ["reader", "disk"]}, waiting_message=_STRING,
    ),
    "EchoAnswer": _answer("echo", ["ok"], user=_STRING, uuid=_STRING),
    "CancelAnswer": _answer("cancel", ["cancelled", "finished"], exec_id=_STRING),
}  # fmt: skip


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _json(schema: Schema) -> Schema:
    return {"application/json": {"schema": schema}}


def _operation(
    name: str,
    summary: str,
    good: dict[str, Any],
    parameters: Iterable[Schema] = (),
    body: Schema | None = None,
    error: str = "Error",
    body_required: bool = True,
) -> dict[str, Any]:
    bad = {str(code): {"description": text, "content": _json(_ref(error))} for code, text in _CODES.items()}
    operation = {"operationId": name, "summary": summary, "responses": {**good, **bad}, "parameters": list(parameters)}
    if body is not None:
        operation["requestBody"] = {"required": body_required, "content": _json(body)}
    return operation


def _ok(schema: Schema, code: int = 200) -> dict[str, Any]:
    return {str(code): {"description": "Done.", "content": _json(schema)}}


def _stream() -> dict[str, Any]:
    return {"200": {"description": _STREAM, "content": {"text/event-stream": {"schema": {"type": "string"}}}}}


def _path_parameter(name: str, schema: Schema) -> Schema:
    return {"name": name, "in": "path", "required": True, "schema": schema}


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
_CALLER: Schema = {
    "name": "caller",
    "in": "query",
    "schema": schemas.parameter(api.PollRequest.DESCRIPTOR.fields_by_name["caller"]),
}
_LAST_EVENT: Schema = {
    "name": "Last-Event-ID",
    "in": "header",
    "schema": {"type": "integer", "minimum": 0, "maximum": 2**63 - 1},
}


def _v1_paths() -> dict[str, Any]:
    one = "/v1/executions/{execId}"
    by_id = [_path_parameter("execId", schemas.EXEC_ID)]
    started = {
        **_ok(_ref("ExecResponse"), 201),
        "200": {"description": "It was there.", "content": _json(_ref("ExecResponse"))},
    }
    return {
        "/v1/info": {"get": _operation("info", "GetServerInfo", _ok(_ref("GetServerInfoResponse")))},
        "/v1/executions": {
            "get": _operation(
                "list", "List: newest first", _ok(_ref("ListResponse")),
                [*_query(api.ListRequest.DESCRIPTOR, ("labels",)), _LABEL],
            ),
            "post": _operation(
                "start", "Exec: start a command, once", started, [_ENCODING],
                _either(schemas.taken(api.ExecRequest.DESCRIPTOR)),
            ),
        },
        one: {
            "parameters": by_id,
            "get": _operation("get", "The execution", _ok(_ref("Execution")), [_CALLER]),
            "delete": _operation("delete", "Delete: forget it", _ok(_ref("DeleteResponse"))),
        },
        f"{one}/output": {
            "parameters": by_id,
            "get": _operation(
                "output", "Poll: the execution and output", _ok(_ref("PollResponse")),
                [*_query(api.PollRequest.DESCRIPTOR, ("exclusive_group",)), _ENCODING],
            ),
        },
        f"{one}/follow": {
            "parameters": by_id,
            "get": _operation(
                "follow", "Follow: output as it appears", _stream(),
                [*_query(api.FollowRequest.DESCRIPTOR), _ENCODING, _LAST_EVENT],
            ),
        },
        f"{one}/signal": {"parameters": by_id, "post": _post("signal", "Signal: send one", "Signal", required=True)},
        f"{one}/cancel": {"parameters": by_id, "post": _post("cancel", "Cancel: end it and all it started", "Cancel")},
        f"{one}/stdin": {
            "parameters": by_id,
            "post": _post("stdin", "WriteStdin: at an offset", "WriteStdin", [_ENCODING], required=True),
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
    return _operation(name, summary, _ok(_ref(f"{message}Response")), parameters, body, body_required=required)


def _mode_paths() -> dict[str, Any]:
    def path(
        mode: str, summary: str, good: dict[str, Any], methods: tuple[str, ...] = ("post",), body: Schema | None = None
    ) -> Any:
        operations = {
            method: _operation(
                f"{mode}_{method}", summary, good, body=body, error="ModeError", body_required=mode == "exec"
            )
            for method in methods
        }
        # What a mode asks with GET has no body.
        operations.get("get", {}).pop("requestBody", None)
        return {f"/api/{mode}/{{uuid}}": {"parameters": [_path_parameter("uuid", _UUID)], **operations}}

    line: Schema = {"type": "string", "pattern": "^[ -~]*[!-~][ -~]*$"}
    command: Schema = {
        "type": "object",
        "required": ["cmd"],
        "additionalProperties": False,
        "properties": {
            "cmd": {**line, "description": "one line, as you would type it", "examples": ["echo hello"]},
            "timeout": {"type": "number", "exclusiveMinimum": 0, "maximum": 10**9},
            "cwd": {"type": "string", "pattern": "^(/[^\\u0000]*)?$"},
            "env": {
                "type": "object",
                "propertyNames": {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"},
                "additionalProperties": {"type": "string", "pattern": "^[^\\u0000]*$"},
            },
        },
    }
    return {
        **path("exec", "Start a command, unless one's own still runs", _ok(_ref("ExecAnswer")), body=command),
        **path("poll", "The newest lines that were not polled yet", _ok(_ref("PollAnswer")), ("get", "post"), body={}),
        **path("echo", "Is anybody there?", _ok(_ref("EchoAnswer")), body={}),
        **path("follow", "The output as it appears, as Server-Sent Events", _stream(), ("get",)),
        **path("cancel", "End one's own command", _ok(_ref("CancelAnswer")), body=_ANY_OBJECT),
    }
