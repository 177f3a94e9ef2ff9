"""The part of the OpenAPI document that describes `/api/<mode>/<uuid>`."""

from __future__ import annotations

from typing import Any

from rexec_server.gateway.openapi_parts import ANY_OBJECT, ok, operation, path_parameter, ref, stream
from rexec_server.gateway.schemas import Schema

_UUID: Schema = {
    "type": "string",
    "pattern": "^[A-Za-z0-9_~:@+=-][A-Za-z0-9._~:@+=-]{0,4095}$",
    "description": "The credential: with --dev the caller's name, otherwise a token. A token starts one command: asked "
    "again, exec answers with the same exec_id. Or `-` beside an Authorization header, which then is the credential; "
    "beside any other uuid that header must say the same.",
}
MODE_ERROR: Schema = {
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
MODE_ANSWERS: dict[str, Schema] = {
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


def mode_paths() -> dict[str, Any]:
    def path(
        mode: str, summary: str, good: dict[str, Any], methods: tuple[str, ...] = ("post",), body: Schema | None = None
    ) -> Any:
        operations = {
            method: operation(
                f"{mode}_{method}", summary, good, body=body, error="ModeError", body_required=mode == "exec"
            )
            for method in methods
        }
        # A mode that asks with GET has no body.
        operations.get("get", {}).pop("requestBody", None)
        return {f"/api/{mode}/{{uuid}}": {"parameters": [path_parameter("uuid", _UUID)], **operations}}

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
        **path("exec", "Start a command, unless one's own still runs", ok(ref("ExecAnswer")), body=command),
        **path("poll", "The newest lines that were not polled yet", ok(ref("PollAnswer")), ("get", "post"), body={}),
        **path("echo", "Is anybody there?", ok(ref("EchoAnswer")), body={}),
        **path("follow", "The output as it appears, as Server-Sent Events", stream(), ("get",)),
        **path("cancel", "End one's own command", ok(ref("CancelAnswer")), body=ANY_OBJECT),
    }
