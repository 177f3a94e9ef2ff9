"""One table of a policy file, checked as it is read: what it may hold, and of which kind."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    model_validator,
)

from rexec_server.policy import units
from rexec_server.policy.rate import Rate

_MAX_COUNT = 2**31 - 1
_MAX_BYTES = 2**60


class Table(BaseModel):
    """What all tables have in common: a key that nothing reads is a mistake, never ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _check_keys(cls, fields: Any) -> Any:
        if isinstance(fields, dict):
            for name in fields:
                if name not in cls.model_fields:
                    raise ValueError(f"unknown key {name!r}; known are {', '.join(cls.model_fields)}")
        return fields


def _no_flag(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("is true or false, where a number belongs")
    return value


def _duration(value: Any) -> Any:
    return units.duration(value) if isinstance(value, str) else _no_flag(value)


def _duration_or_never(value: Any) -> Any:
    return units.duration_or_never(value) if isinstance(value, str) else _no_flag(value)


def _size(value: Any) -> Any:
    return units.size(value) if isinstance(value, str) else _no_flag(value)


def _rate(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no rate; write for example 10/s, 600/m or 100/h")
    return Rate.parse(value)


def _check_text(value: Any) -> Any:
    if isinstance(value, str) and "\0" in value:
        raise ValueError("has a NUL character, which no argument, path or variable can hold")
    return value


Flag = StrictBool
Integer = StrictInt
Count = Annotated[StrictInt, Field(gt=0, le=_MAX_COUNT)]
Text = Annotated[str, BeforeValidator(_check_text)]
Seconds = Annotated[float, BeforeValidator(_duration), Field(gt=0, le=units.MAX_SECONDS, allow_inf_nan=False)]
SecondsOrNever = Annotated[float, BeforeValidator(_duration_or_never), AfterValidator(units.check_wait)]
Bytes = Annotated[int, BeforeValidator(_size), Field(gt=0, le=_MAX_BYTES)]
StartRate = Annotated[Rate, BeforeValidator(_rate)]
