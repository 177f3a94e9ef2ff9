"""Every refusal: what is wrong, as a status and a sentence that helps; and how it looks as JSON."""

from __future__ import annotations

import logging
import math
import uuid
from typing import Any

from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from rexec_client.errors import CallError

_log = logging.getLogger("rexec.gateway")

# google.rpc.Code -> HTTP, as google/rpc/code.proto says; but what breaks behind a gateway is a 502, not its own 500.
HTTP_STATUS = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ABORTED": 409,
    "ALREADY_EXISTS": 409,
    "RESOURCE_EXHAUSTED": 429,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "CANCELLED": 503,
    "DEADLINE_EXCEEDED": 504,
}
BROKEN_BEHIND = 502
# The nearest google.rpc.Code of what HTTP itself refuses.
_CODE_OF_HTTP = {401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED"}
_CODE_OF_HTTP |= {405: "UNIMPLEMENTED", 500: "INTERNAL", 503: "UNAVAILABLE"}

RETRY_AFTER = 1.0
# Always the same, whatever the server said: who has no credential learns nothing from what was wrong with it.
_UNAUTHENTICATED = (
    "no credential, or not a good one; it goes into the header Authorization: Bearer ..., or is the uuid in the path"
)
_DETAIL = "type.googleapis.com/google.rpc."


class Problem(Exception):
    """A request is refused. `code` is the name of a google.rpc.Code, `details` are those of google.rpc.Status."""

    def __init__(
        self,
        http: int,
        message: str,
        *,
        code: str = "",
        details: list[dict[str, Any]] | None = None,
        retry_after: float | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.http = http
        self.message = message
        self.code = code or _CODE_OF_HTTP.get(http, "INVALID_ARGUMENT")
        self.details = details or []
        self.headers = headers or {}
        if retry_after is None and http in (429, 503):
            retry_after = RETRY_AFTER
        if retry_after is not None:
            self.headers["Retry-After"] = str(max(1, math.ceil(retry_after)))

    @property
    def body(self) -> dict[str, Any]:
        """The short form under /api, the one of google.rpc and AIP-193 everywhere else."""
        if request.path.startswith("/api/"):
            return {"mode": asked_mode(), "status": "error", "error": self.message, "code": self.code}
        return {"error": self.as_status()}

    def as_status(self) -> dict[str, Any]:
        return {"code": self.http, "status": self.code, "message": self.message, "details": self.details}


def asked_mode() -> str:
    """What stands where a mode should: /api/<mode>/…"""
    return request.path.split("/", 3)[2][:64]


def from_call(error: CallError) -> Problem:
    """What the server said, for HTTP."""
    http = HTTP_STATUS.get(error.code, BROKEN_BEHIND)
    if http == 401:
        return unauthenticated()
    message = str(error)
    if error.code == "UNAVAILABLE" and not error.reason:  # gRPC's own words are for its developers
        message = "the rexec server does not answer; try again"
    return Problem(http, message, code=error.code, details=_details(error), retry_after=error.retry_after)


def unauthenticated() -> Problem:
    """Nobody is known to ask."""
    return Problem(401, _UNAUTHENTICATED, headers={"WWW-Authenticate": "Bearer"})


def install(app: Flask) -> None:
    """Makes every error of the app an answer in JSON."""
    app.register_error_handler(Problem, _answer)
    app.register_error_handler(CallError, lambda error: _answer(from_call(error)))
    app.register_error_handler(HTTPException, lambda error: _answer(_from_http(error)))
    app.register_error_handler(Exception, lambda error: _answer(_unexpected(error)))


def _answer(problem: Problem) -> Response:
    response = jsonify(problem.body)
    response.status_code = problem.http
    response.headers.update(problem.headers)
    return response


def _from_http(error: HTTPException) -> Problem:
    """What Flask itself refuses: no such route, a method that a route has not, a body that is too large."""
    http = error.code or 500
    headers = {}
    message = error.description or error.name
    if isinstance(error, MethodNotAllowed):
        headers["Allow"] = ", ".join(sorted(set(error.valid_methods or ()) - {"HEAD", "OPTIONS"}))
        message = f"{request.method} is not possible here; use {headers['Allow']}"
    elif http == 404:
        message = "there is nothing at this address; see /openapi.json for what there is"
    return Problem(http, message, headers=headers)


def _unexpected(error: Exception) -> Problem:
    """A mistake of ours: told by an id only, under which the log has it."""
    incident = uuid.uuid4().hex
    _log.error("incident %s", incident, exc_info=error)
    return Problem(500, f"the gateway made a mistake; its log has it as incident {incident}")


def _details(error: CallError) -> list[dict[str, Any]]:
    details: list[dict[str, Any]] = []
    if error.reason:
        info = {"reason": error.reason, "domain": "rexec", "metadata": error.metadata}
        details.append({"@type": f"{_DETAIL}ErrorInfo", **info})
    if error.violations:
        violations = [{"field": field, "description": what} for field, what in error.violations.items()]
        details.append({"@type": f"{_DETAIL}BadRequest", "fieldViolations": violations})
    if error.retry_after is not None:
        details.append({"@type": f"{_DETAIL}RetryInfo", "retryDelay": f"{error.retry_after:g}s"})
    return details
