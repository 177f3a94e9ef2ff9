"""What a request may ask for besides its command, within what its rule allows."""

from __future__ import annotations

from rexec_server.core.command import Command
from rexec_server.core.errors import InvalidRequest
from rexec_server.core.launch import Leftovers, Limits, Overflow, StdinMode
from rexec_server.policy.rule_table import RuleTable

# Where a rule does not say: a caller alone must not be able to fill the disk.
DEFAULT_OUTPUT = 64 * 1024 * 1024
# What may come on top of a timeout, each, be it the rule's or the server's: else a long grace would be a way around it.
_MOST_GRACE = 60.0

_STDIN = {
    "none": (StdinMode.NULL,),
    "bytes": (StdinMode.NULL, StdinMode.BYTES),
    "open": (StdinMode.NULL, StdinMode.BYTES, StdinMode.OPEN),
}


def check(rule: RuleTable, command: Command) -> None:
    """InvalidRequest names the field that asks for too much, and the most there is."""
    if command.stdin_mode not in _STDIN[rule.stdin]:
        raise InvalidRequest("stdin_mode", f"rule {rule.name!r} has stdin = {rule.stdin!r}", stdin=rule.stdin)
    if command.leftovers is Leftovers.KEEP and rule.leftovers != "keep":
        raise InvalidRequest("leftovers", f"rule {rule.name!r} always ends what is left over")
    most = rule.output or DEFAULT_OUTPUT
    if command.output_bytes > most:
        raise InvalidRequest("output.max_bytes", f"{command.output_bytes}; rule {rule.name!r} allows at most {most}")
    _check_durations(rule, command)


def _check_durations(rule: RuleTable, command: Command) -> None:
    asked: tuple[tuple[str, float | None, float | None], ...] = (
        ("timeout", command.timeout, rule.timeout),
        ("kill_grace", command.kill_grace, _MOST_GRACE),
        ("drain_timeout", command.drain_timeout, _MOST_GRACE),
    )
    if command.overflow is Overflow.WAIT:
        asked = (*asked, ("unattended_timeout", command.unattended_timeout, rule.waiting_timeout))
    for field, seconds, most in asked:
        if seconds is not None and most is not None and seconds > most:
            raise InvalidRequest(field, f"{seconds:g} s; rule {rule.name!r} allows at most {most:g} s")


def limits(rule: RuleTable, command: Command) -> Limits:
    """Those of the rule, or less where the request asks for less. InvalidRequest."""
    allowed = rule.limits.limits()
    for field, asked, most in zip(Limits._fields, command.limits, allowed, strict=True):
        if most and asked > most:
            raise InvalidRequest(f"limits.{field}", f"{asked}; rule {rule.name!r} allows at most {most}")
    return Limits(*(asked or most for asked, most in zip(command.limits, allowed, strict=True)))
