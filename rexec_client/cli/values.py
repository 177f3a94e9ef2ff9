"""Kinds of values that options take: durations, sizes, pairs."""

from __future__ import annotations

import re

import click

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_SIZES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic only since click 8.3
    """`30s`, `1h30m`, `500ms`, or plain seconds; the value is in seconds."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        text = str(value).strip()
        if re.fullmatch(r"\d+(\.\d+)?", text):
            return float(text)
        if not re.fullmatch(r"(\d+(\.\d+)?(ms|s|m|h|d))+", text):
            self.fail(f"{text!r} is not a duration such as 30s, 5m or 1h30m.", param, ctx)
        return sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"([\d.]+)(ms|[smhd])", text))


class Size(click.ParamType):  # type: ignore[type-arg]  # generic only since click 8.3
    """`64k`, `10M`, `1G`, or plain bytes."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        match = re.fullmatch(r"(\d+)([kmg]?)(i?b)?", str(value).strip().lower())
        if not match:
            self.fail(f"{value!r} is not a size such as 64k, 10M or 1G.", param, ctx)
        size = int(match[1]) * _SIZES[match[2]]
        if not 0 < size < 1 << 63:
            self.fail(f"{value!r} is not a size from 1 to 8E; left out, it is the server's default.", param, ctx)
        return size


class Pair(click.ParamType):  # type: ignore[type-arg]  # generic only since click 8.3
    """`KEY=VALUE`."""

    name = "key=value"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        key, equals, rest = str(value).partition("=")
        if not key or not equals:
            self.fail(f"{value!r} is not KEY=VALUE.", param, ctx)
        return key, rest


class Whole(click.ParamType):  # type: ignore[type-arg]  # generic only since click 8.3
    """A whole number from 0 to what its field of the contract has room for."""

    name = "number"

    def __init__(self, bits: int) -> None:
        self._most = (1 << bits) - 1

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value).strip()
        if not (text.isascii() and text.isdigit()) or len(text) > 20 or int(text) > self._most:
            self.fail(f"{value!r} is not a whole number from 0 to {self._most}.", param, ctx)
        return int(text)


class Text(click.ParamType):  # type: ignore[type-arg]  # generic only since click 8.3
    """Anything but nothing: an empty word is usually a variable that is not set, and would be taken for no option."""

    name = "text"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not value:
            self.fail("it is empty: give a value, or leave the option out.", param, ctx)
        return str(value)


class SignalNumber(click.ParamType):  # type: ignore[type-arg]  # generic only since click 8.3
    """`TERM`, `SIGTERM` or `15`."""

    name = "signal"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        import signal

        text = str(value).upper()
        if text.isdigit():
            return int(text)
        names = {item.name.removeprefix("SIG"): item.value for item in signal.Signals}
        if text.removeprefix("SIG") not in names:
            self.fail(f"{value!r} is not a signal.", param, ctx)
        return names[text.removeprefix("SIG")]


DURATION, SIZE, PAIR, SIGNAL, TEXT = Duration(), Size(), Pair(), SignalNumber(), Text()
OFFSET, COUNT = Whole(63), Whole(32)
