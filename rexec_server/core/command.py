"""What a caller asks to be run, checked; and what distinguishes one request from another."""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass, field, fields

from rexec_server.core.errors import InvalidRequest, shown
from rexec_server.core.execution import Request
from rexec_server.core.grant import UNRESTRICTED, Grant
from rexec_server.core.launch import Launch, Leftovers, Limits, Overflow, StderrMode, StdinMode

EXEC_ID = re.compile(r"(?!\.)[A-Za-z0-9._-]{1,128}")
_LABEL_NAME = re.compile(r"[a-z0-9._/-]{1,63}")
_VARIABLE_NAME = re.compile(r"[^=\0]+")
# Each is checked, hashed, written down and shown again. xargs makes lines of 128 KiB, some thousands of names.
MAX_ARGUMENTS = 16_384
MAX_VARIABLES = 4_096
MAX_LABELS = 32
MAX_LABEL_VALUE = 255
MAX_GROUP = 255
MAX_SHOWN_BYTES = 2 * 1024 * 1024
# A day less than 100 years: longer durations are mistakes, and overflow clocks.
MAX_SECONDS = 100 * 365 * 86400.0


@dataclass(frozen=True, slots=True)
class Command:
    """One request to run something. Durations are in seconds; None is the server's default."""

    arguments: tuple[str, ...] = ()
    shell: str = ""
    working_directory: str = ""
    environment_variables: dict[str, str] = field(default_factory=dict)
    stdin_mode: StdinMode = StdinMode.NULL
    initial_stdin: bytes = b""
    stderr_mode: StderrMode = StderrMode.SEPARATE
    timeout: float | None = None
    kill_grace: float | None = None
    drain_timeout: float | None = None
    unattended_timeout: float | None = None
    leftovers: Leftovers = Leftovers.KILL
    output_bytes: int = 0
    overflow: Overflow = Overflow.DROP_OLDEST
    limits: Limits = Limits()
    retention: float | None = None
    labels: dict[str, str] = field(default_factory=dict)
    exclusive_group: str = ""

    def check(self) -> None:
        """Raises InvalidRequest for what can be in no request."""
        self._check_counts()
        if bool(self.arguments) == bool(self.shell):
            raise InvalidRequest("arguments", "give exactly one of arguments and shell")
        if self.arguments and not self.arguments[0]:
            raise InvalidRequest("arguments[0]", "the program's name is empty")
        for index, argument in enumerate(self.arguments):
            if "\0" in argument:
                _check_text(f"arguments[{index}]", argument)
        _check_text("shell", self.shell)
        self._check_size()
        self._check_directory()
        self._check_environment()
        self._check_durations()
        self._check_labels()
        if self.initial_stdin and self.stdin_mode == StdinMode.NULL:
            raise InvalidRequest("initial_stdin", "needs stdin_mode STDIN_MODE_BYTES or STDIN_MODE_OPEN")
        _check_text("exclusive_group", self.exclusive_group)
        if len(self.exclusive_group) > MAX_GROUP:
            raise InvalidRequest("exclusive_group", f"may have at most {MAX_GROUP} characters")

    def digest(self, key: bytes) -> bytes:
        """The request's identity: equal for equal requests. Keyed, as it is stored and covers secrets.

        A field that has its default is left out, so that a retry is known again by a server that has more fields.
        """
        # Not `asdict`, which copies each argument: with the most of them that is half of the time.
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        asked = {name: value for name, value in values.items() if value != getattr(_NOTHING, name)}
        asked |= {"initial_stdin": hashlib.sha256(self.initial_stdin).hexdigest()}
        canonical = json.dumps(asked, sort_keys=True, separators=(",", ":"))
        return hashlib.blake2b(canonical.encode(), key=key, digest_size=32).digest()

    def _check_counts(self) -> None:
        """Check the number of elements, before anything is done with them."""
        for name, most in (
            ("arguments", MAX_ARGUMENTS), ("environment_variables", MAX_VARIABLES), ("labels", MAX_LABELS),
        ):  # fmt: skip
            count = len(getattr(self, name))
            if count > most:
                raise InvalidRequest(name, f"{count} elements; at most {most} are taken")

    def _check_size(self) -> None:
        """What every reply shows again must leave room for output; the kernel takes no more than this either."""
        shown = (*self.arguments, self.shell, self.working_directory, *self.environment_variables)
        size = sum(len(text.encode()) for text in shown)
        if size > MAX_SHOWN_BYTES:
            field = "arguments" if self.arguments else "shell"
            raise InvalidRequest(field, f"with the variables' names {size} bytes; at most {MAX_SHOWN_BYTES} are taken")

    def _check_directory(self) -> None:
        _check_text("working_directory", self.working_directory)
        if self.working_directory and not self.working_directory.startswith("/"):
            raise InvalidRequest("working_directory", f"{shown(self.working_directory)} is not an absolute path")

    def _check_environment(self) -> None:
        for name, value in self.environment_variables.items():
            if not _VARIABLE_NAME.fullmatch(name):
                raise InvalidRequest("environment_variables", f"{shown(name)} cannot be a variable's name")
            if "\0" in value:
                _check_text(f"environment_variables[{shown(name)}]", value)

    def _check_durations(self) -> None:
        for name in ("timeout", "kill_grace", "drain_timeout", "unattended_timeout", "retention"):
            check_duration(name, getattr(self, name))

    def _check_labels(self) -> None:
        for name, value in self.labels.items():
            if not _LABEL_NAME.fullmatch(name):
                raise InvalidRequest("labels", f"{shown(name)}: a label's name is [a-z0-9._/-]{{1,63}}")
            if len(value) > MAX_LABEL_VALUE:
                raise InvalidRequest("labels", f"the value of {name!r} has more than {MAX_LABEL_VALUE} characters")


_NOTHING = Command()


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a server decides where a request does not."""

    working_directory: str
    environment: dict[str, str]
    output_bytes: int = 64 * 1024 * 1024
    kill_grace: float = 5.0
    drain_timeout: float = 0.2
    max_timeout: float | None = None
    retention: float = 24 * 3600.0
    limits: Limits = Limits()
    umask: int = 0o022
    waiting_timeout: float = 3600.0  # how long a command waits for a reader without a holder; infinity: for ever

    def launch(self, command: Command, grant: Grant = UNRESTRICTED) -> Launch:
        """The complete order to start a command, as it was granted."""
        if self.max_timeout is not None and (command.timeout or 0) > self.max_timeout:
            raise InvalidRequest("timeout", f"{command.timeout:g} s; this server grants at most {self.max_timeout:g} s")
        return Launch(
            arguments=grant.arguments or command.arguments or ("/bin/sh", "-c", command.shell),
            environment=self._environment(command, grant),
            working_directory=self._directory(command, grant),
            output_bytes=self._output_bytes(command, grant),
            overflow=command.overflow,
            stdin_mode=command.stdin_mode,
            initial_stdin=command.initial_stdin,
            stderr_mode=command.stderr_mode,
            timeout=_either(_either(grant.timeout, command.timeout), self.max_timeout),
            kill_grace=_either(command.kill_grace, self.kill_grace) or 0.0,
            drain_timeout=_either(command.drain_timeout, self.drain_timeout) or 0.0,
            unattended_timeout=command.unattended_timeout,
            leftovers=command.leftovers,
            limits=self._limits(command, grant),
            umask=self.umask if grant.umask is None else grant.umask,
            confinement=grant.confinement,
            waiting_timeout=self._waiting_timeout(command, grant),
        )

    def request(self, command: Command, grant: Grant = UNRESTRICTED) -> Request:
        """What is shown of the command in its execution."""
        return Request(
            arguments=command.arguments,
            shell=command.shell,
            working_directory=self._directory(command, grant),
            environment_names=tuple(sorted(command.environment_variables)),
            labels=command.labels,
            exclusive_group=command.exclusive_group,
            channels=1 if command.stderr_mode == StderrMode.MERGED else 2,
            stdin_bytes=len(command.initial_stdin),
            stdin_open=command.stdin_mode == StdinMode.OPEN,
            retention=self.retention if command.retention is None else command.retention,
            rule=grant.rule,
            granted=grant.arguments if grant.arguments != command.arguments else (),
            user=grant.confinement.user,
            output_bytes=self._output_bytes(command, grant),
            waits=command.overflow is Overflow.WAIT,
        )

    def _output_bytes(self, command: Command, grant: Grant) -> int:
        return grant.output_bytes or command.output_bytes or self.output_bytes

    def _waiting_timeout(self, command: Command, grant: Grant) -> float | None:
        """Return None where nothing waits, too: an older runner can start that."""
        if command.overflow is not Overflow.WAIT:
            return None
        asked = self.waiting_timeout if grant.waiting_timeout is None else grant.waiting_timeout
        return None if asked == math.inf else asked

    def _directory(self, command: Command, grant: Grant) -> str:
        return grant.working_directory or command.working_directory or self.working_directory

    def _environment(self, command: Command, grant: Grant) -> dict[str, str]:
        if grant.environment is not None:
            return grant.environment
        return self.environment | command.environment_variables

    def _limits(self, command: Command, grant: Grant) -> Limits:
        asked = command.limits if grant.limits is None else grant.limits
        return Limits(*(value or default for value, default in zip(asked, self.limits, strict=True)))


def check_exec_id(exec_id: str) -> None:
    if not EXEC_ID.fullmatch(exec_id):
        raise InvalidRequest("exec_id", f"{shown(exec_id)} is not [A-Za-z0-9._-]{{1,128}}, not starting with a dot")


def check_duration(name: str, seconds: float | None) -> None:
    if seconds is not None and not 0 <= seconds <= MAX_SECONDS:
        raise InvalidRequest(name, f"{seconds:g} s; a duration is 0 s to {MAX_SECONDS:.0f} s")


def _check_text(name: str, value: str) -> None:
    if "\0" in value:
        raise InvalidRequest(name, "has a NUL character, which no argument, path or variable can hold")


def _either(asked: float | None, default: float | None) -> float | None:
    return default if asked is None else asked
