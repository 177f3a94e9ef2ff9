"""Parts of the OpenAPI document that several of its routes have in common."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

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
ANY_OBJECT: Schema = {"type": "object"}


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def json_content(schema: Schema) -> Schema:
    return {"application/json": {"schema": schema}}


def operation(
    name: str,
    summary: str,
    good: dict[str, Any],
    parameters: Iterable[Schema] = (),
    body: Schema | None = None,
    error: str = "Error",
    body_required: bool = True,
) -> dict[str, Any]:
    bad = {str(code): {"description": text, "content": json_content(ref(error))} for code, text in _CODES.items()}
    operation = {"operationId": name, "summary": summary, "responses": {**good, **bad}, "parameters": list(parameters)}
    if body is not None:
        operation["requestBody"] = {"required": body_required, "content": json_content(body)}
    return operation


def ok(schema: Schema, code: int = 200) -> dict[str, Any]:
    return {str(code): {"description": "Done.", "content": json_content(schema)}}


def stream() -> dict[str, Any]:
    return {"200": {"description": _STREAM, "content": {"text/event-stream": {"schema": {"type": "string"}}}}}


def path_parameter(name: str, schema: Schema) -> Schema:
    return {"name": name, "in": "path", "required": True, "schema": schema}
