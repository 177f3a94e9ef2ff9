"""What a caller may fill in: one value each, of a declared type, made canonical before it is used."""

from __future__ import annotations

import os
import re
from typing import Annotated, Any, Literal, Protocol, TypeAlias

import re2  # type: ignore[import-untyped]
from pydantic import AfterValidator, Field, model_validator

from rexec_server.policy.table import Count, Flag, Integer, Table, Text

MAX_VALUE_BYTES = 64 * 1024
# Of Linux, the first with the NUL at the end. Each part of a path is looked up: a longer one only costs time.
_PATH_MAX, _NAME_MAX = 4096, 255
# Control characters, NUL among them, and lone surrogates: no type takes them, whatever its pattern says.
_FORBIDDEN = re.compile("[\0-\x1f\x7f-\x9f\ud800-\udfff]")
_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,18})", re.ASCII)
# An escape, a class, or an anchor: so that only an anchor that is one is found.
_PATTERN_PART = re.compile(r"\\.|\[\^?\]?(?:\\.|\[:\^?\w+:\]|[^\]\\])*\]|[\^$]", re.DOTALL)
_ANCHORS = frozenset({"^", "$", r"\A", r"\z"})


class Matcher(Protocol):
    """A compiled pattern."""

    def fullmatch(self, text: str) -> Any: ...


def compile_pattern(pattern: str) -> Matcher:
    """For whole values, in time that is linear in their length. ValueError."""
    for part in _PATTERN_PART.findall(pattern):
        if part in _ANCHORS:
            raise ValueError(f"pattern {pattern!r} has {part}: a pattern always matches the whole value; leave it out")
    options = re2.Options()
    options.log_errors = False
    try:
        compiled: Matcher = re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0] if error.args else "refused"
        reason = reason.decode(errors="replace") if isinstance(reason, bytes) else reason
        raise ValueError(f"pattern {pattern!r} is none that RE2 takes: {reason}") from error
    return compiled


def check_text(value: str) -> None:
    """ValueError for what no type takes."""
    if _FORBIDDEN.search(value):
        raise ValueError("it has a control character")
    if len(value.encode()) > MAX_VALUE_BYTES:
        raise ValueError(f"it has more than {MAX_VALUE_BYTES} bytes")


def _check_pattern(pattern: str) -> str:
    compile_pattern(pattern)
    return pattern


def _check_root(root: str) -> str:
    if not root.startswith("/") or os.path.normpath(root) != root or root.startswith("//"):
        raise ValueError(f"{root!r} is no absolute path in its plain form, such as /var/log/app")
    return root


Pattern = Annotated[Text, AfterValidator(_check_pattern)]


class _Slot(Table):
    """What all types have in common."""

    allow_dash: Flag = False  # may the value start with "-", and so be taken for an option
    secret: Flag = False  # environment only: an argument can be seen by every user of the machine
    required: Flag = False  # environment only: an argument is always there

    def fill(self, text: str) -> str:
        """The value that is used for what the caller gave. ValueError says what it is not."""
        check_text(text)
        value = self._canonical(text)
        check_text(value)  # again: a symbolic link's target may hold anything
        if value.startswith("-") and not self.allow_dash:
            raise ValueError("it starts with '-', and would be taken for an option")
        return value

    def _canonical(self, text: str) -> str:
        raise NotImplementedError


class IntSlot(_Slot):
    """A decimal number, written in the one way that it has."""

    type: Literal["int"]
    min: Integer
    max: Integer

    @model_validator(mode="after")
    def _check(self) -> IntSlot:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is more than max {self.max}")
        if self.min < 0 and not self.allow_dash:
            raise ValueError("min is negative, and a value with '-' needs allow_dash = true")
        return self

    def _canonical(self, text: str) -> str:
        if not _INTEGER.fullmatch(text) or str(int(text)) != text:
            raise ValueError("it is no plain decimal number")
        if not self.min <= int(text) <= self.max:
            raise ValueError(f"it is not {self.min} to {self.max}")
        return text


class EnumSlot(_Slot):
    """One of some values."""

    type: Literal["enum"]
    values: tuple[Text, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _check(self) -> EnumSlot:
        for value in self.values:
            check_text(value)
            if value.startswith("-") and not self.allow_dash:
                raise ValueError(f"the value {value!r} starts with '-', which needs allow_dash = true")
        return self

    def _canonical(self, text: str) -> str:
        if text not in self.values:
            raise ValueError(f"it is none of {', '.join(self.values)}")
        return text


class PatternSlot(_Slot):
    """Whatever a pattern matches as a whole."""

    type: Literal["pattern"]
    pattern: Pattern
    max_length: Count = 4096  # characters
    _matcher: Matcher

    def model_post_init(self, _context: Any) -> None:
        self._matcher = compile_pattern(self.pattern)

    def _canonical(self, text: str) -> str:
        if len(text) > self.max_length:
            raise ValueError(f"it has more than {self.max_length} characters")
        if not self._matcher.fullmatch(text):
            raise ValueError(f"it does not match the pattern {self.pattern!r}")
        return text


class PathSlot(_Slot):
    """A path below a directory; what is used is where it really leads."""

    type: Literal["path"]
    root: Annotated[Text, AfterValidator(_check_root)]
    pattern: Pattern | None = None  # for the part below root, as the caller wrote it
    exists: Flag = True  # else at least its directory must
    _matcher: Matcher | None = None

    def model_post_init(self, _context: Any) -> None:
        self._matcher = None if self.pattern is None else compile_pattern(self.pattern)

    def _canonical(self, text: str) -> str:
        below = self._below(text)
        if self._matcher is not None and not self._matcher.fullmatch(below):
            raise ValueError(f"it does not match the pattern {self.pattern!r}")
        try:
            return self._real(below)
        except OSError as error:
            raise ValueError(f"it cannot be looked at: {error.strerror}") from error

    def _below(self, text: str) -> str:
        """The part below root, whose segments are all names. Only by the text: nothing is looked up yet."""
        prefix = self.root.rstrip("/") + "/"
        below = text.removeprefix(prefix)
        if len((prefix + below).encode()) >= _PATH_MAX:
            raise ValueError("it is longer than a path can be")
        for segment in below.split("/"):
            if segment in ("", ".", ".."):
                raise ValueError(f"it is no plain path below {self.root}")
            if len(segment.encode()) > _NAME_MAX:
                raise ValueError(f"it has a name of more than {_NAME_MAX} bytes")
        return below

    def _real(self, below: str) -> str:
        root = os.path.realpath(self.root, strict=True)
        real = self._resolve(os.path.join(root, below))
        if real == root or os.path.commonpath((root, real)) != root:
            raise ValueError(f"it leads out of {self.root}")
        if not os.path.isdir(os.path.dirname(real)):
            raise ValueError("it needs a directory that exists")
        return real

    def _resolve(self, path: str) -> str:
        try:
            return os.path.realpath(path, strict=True)
        except FileNotFoundError:
            if self.exists:
                raise
            return os.path.realpath(path)  # a link to nothing yet would be followed as well


Slot: TypeAlias = Annotated[IntSlot | EnumSlot | PatternSlot | PathSlot, Field(discriminator="type")]
SLOT_TYPES = ("int", "enum", "pattern", "path")
