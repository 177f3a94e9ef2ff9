"""What a policy file holds, as it is written; what it means is decided in `rule`."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StrictInt, model_validator

from rexec_server.core.launch import Limits
from rexec_server.policy.slots import Slot
from rexec_server.policy.table import Bytes, Count, Flag, Seconds, SecondsOrNever, StartRate, Table, Text

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)
_UMASK = re.compile(r"0?[0-7]{1,3}", re.ASCII)
_MAX_CPUS = 4096


def _check_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no rule's name: [a-z0-9][a-z0-9._-]{{0,63}}")
    return name


def _umask(value: Any) -> Any:
    if isinstance(value, str) and _UMASK.fullmatch(value):
        return int(value, 8)
    raise ValueError(f'{value!r} is no umask; write for example "0077"')


def _check_who(name: str) -> str:
    if not name or "*" in name:
        raise ValueError(f"{name!r} names nobody: each caller or role is named, there is no wildcard")
    return name


def _check_directory(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError(f"{path!r} is no absolute path")
    return path


def _run_as(value: Any) -> Any:
    return {"user": value} if isinstance(value, str | int) and not isinstance(value, bool) else value


Name = str | StrictInt
Who = Annotated[Text, AfterValidator(_check_who)]
Arguments = Annotated[tuple[Text, ...], Field(min_length=1)]


class RunAs(Table):
    """As whom. Without `group` the user's own; no supplementary group but those named."""

    user: Name
    group: Name | None = None
    groups: tuple[Name, ...] = ()


class LimitsTable(Table):
    """Limits of each process, as setrlimit(2) takes them: what a request gets, and the most it may ask for."""

    memory: Bytes | None = None
    cpu: Seconds | None = None
    processes: Count | None = None
    open_files: Count | None = None
    file: Bytes | None = None

    def limits(self) -> Limits:
        return Limits(
            memory_bytes=self.memory or 0,
            cpu_seconds=math.ceil(self.cpu or 0),
            processes=self.processes or 0,
            open_files=self.open_files or 0,
            file_bytes=self.file or 0,
        )


class CgroupTable(Table):
    """Limits for all processes of the command together."""

    memory: Bytes | None = None
    processes: Count | None = None
    cpus: Annotated[float, Field(strict=True, gt=0, le=_MAX_CPUS, allow_inf_nan=False)] | None = None


class TestTable(Table):
    """One question that the file asks itself whenever it is loaded, with the answer that it must give."""

    __test__ = False  # no test of pytest's

    caller: Who | None = None
    roles: tuple[Who, ...] = ()
    arguments: Arguments | None = None
    shell: Text | None = None
    environment: dict[str, Text] = Field(default_factory=dict)
    expect: Literal["allow", "deny"]

    @model_validator(mode="after")
    def _check(self) -> TestTable:
        if self.caller is None and not self.roles:
            raise ValueError("a test needs a caller, roles, or both")
        _check_command(self.arguments, self.shell)
        return self


class RuleTable(Table):
    """One thing that may be run."""

    name: Annotated[Text, AfterValidator(_check_name)]
    arguments: Arguments | None = None
    shell: Text | None = None
    callers: tuple[Who, ...] = ()
    roles: tuple[Who, ...] = ()
    run_as: Annotated[RunAs | None, BeforeValidator(_run_as)] = None
    working_directory: Annotated[Text, AfterValidator(_check_directory)] = "/"
    environment: dict[str, Text] = Field(default_factory=dict)
    stdin: Literal["none", "bytes", "open"] = "none"
    timeout: Seconds | None = None
    output: Bytes | None = None
    waiting_timeout: SecondsOrNever | None = None
    max_running: Count | None = None
    rate: StartRate | None = None
    umask: Annotated[int, BeforeValidator(_umask)] = 0o077
    no_new_privileges: Flag = True
    drop_capabilities: Flag = True
    leftovers: Literal["kill", "keep"] = "kill"
    limits: LimitsTable = LimitsTable()
    cgroup: CgroupTable = CgroupTable()
    loader_ok: Text | None = None
    slots: dict[str, Slot] = Field(default_factory=dict)
    environment_slots: dict[str, Slot] = Field(default_factory=dict)
    test: tuple[TestTable, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> RuleTable:
        _check_command(self.arguments, self.shell)
        if not self.callers and not self.roles:
            raise ValueError("nobody may use it: name callers, roles, or both")
        if self.loader_ok is not None and not self.loader_ok.strip():
            raise ValueError("loader_ok is the reason why that is safe, and it is empty")
        return self


class PolicyTable(Table):
    """A whole file."""

    trusted_owners: tuple[Name, ...] = ()
    rule: Annotated[tuple[RuleTable, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _check(self) -> PolicyTable:
        names = [rule.name for rule in self.rule]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two rules have the name {name!r}")
        return self


def _check_command(arguments: tuple[str, ...] | None, shell: str | None) -> None:
    if bool(arguments) == bool(shell):
        raise ValueError("give exactly one of arguments and shell")
