"""The body of an exec: `cmd`, and what may stand beside it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from rexec.v1 import execution_service_pb2 as api

from rexec_server.gateway.problems import Problem

_KEYS = ("cmd", "timeout", "cwd", "env")
_LONGEST_SECONDS = 10**9


def exec_request(given: dict[str, Any], exec_id: str, group: str) -> api.ExecRequest:
    """The request that a body asks for. The id makes a call that is repeated on the way start one command."""
    if unknown := given.keys() - set(_KEYS):
        raise Problem(400, f"exec does not know {min(unknown)[:64]!r}; it knows {', '.join(_KEYS)}")
    request = api.ExecRequest(
        exec_id=exec_id,
        shell=_cmd(given.get("cmd")),
        working_directory=_cwd(given.get("cwd", "")),
        environment_variables=_env(given.get("env", {})),
        exclusive_group=group,
        # One console, in the order in which the command wrote.
        stderr_mode=api.STDERR_MODE_MERGED,
    )
    if "timeout" in given:
        request.timeout.FromTimedelta(timedelta(seconds=_timeout(given["timeout"])))
    return request


def _cmd(value: Any) -> str:
    if value is None:
        raise Problem(400, 'cmd is missing; give the command to run, such as {"cmd": "echo hello"}')
    if not isinstance(value, str):
        raise Problem(400, "cmd must be a string: one line, as you would type it")
    if not value.strip():
        raise Problem(400, "cmd is empty; give the command to run")
    return value


def _timeout(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Problem(400, "timeout must be a number of seconds (with httpie: timeout:=30)")
    if not 0 < value <= _LONGEST_SECONDS:
        raise Problem(400, f"timeout must be more than 0 and at most {_LONGEST_SECONDS} seconds")
    return float(value)


def _cwd(value: Any) -> str:
    if not isinstance(value, str):
        raise Problem(400, "cwd must be a string: an absolute directory")
    return value


def _env(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise Problem(400, 'env must be an object of strings, such as {"LANG": "C.UTF-8"}')
    return value
