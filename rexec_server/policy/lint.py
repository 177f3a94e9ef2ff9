"""What no rule may be, though each of its parts could: found before it is in force."""

from __future__ import annotations

from collections.abc import Iterator

from rexec_server.policy import environment
from rexec_server.policy.programs import loader
from rexec_server.policy.rule_table import RuleTable
from rexec_server.policy.skeleton import Skeleton

SHELL = "/bin/sh"


def check(rule: RuleTable, skeleton: Skeleton) -> None:
    """ValueError, with the first of what is wrong."""
    _check_slots(rule, skeleton)
    _check_environment(rule)
    _check_loader(rule, skeleton.program)


def _check_slots(rule: RuleTable, skeleton: Skeleton) -> None:
    for name in skeleton.slots:
        if name not in rule.slots:
            raise ValueError(f"slot {{{name}}} is not declared; add it to [rule.slots]")
    for name, slot in rule.slots.items():
        if name not in skeleton.slots:
            raise ValueError(f"slots.{name} is in none of the arguments; a slot is written {{{name}}}")
        if slot.secret:
            raise ValueError(
                f"slots.{name} is secret, but an argument can be seen by every user of the machine;"
                " take it by stdin, or in [rule.environment_slots]"
            )
        if slot.required:
            raise ValueError(f"slots.{name}: required is for [rule.environment_slots]; an argument is always there")


def _check_environment(rule: RuleTable) -> None:
    for name in rule.environment:
        environment.check_fixed_name(name)
    for name in rule.environment_slots:
        environment.check_slot_name(name)
        if name in rule.environment or name in environment.BASE:
            raise ValueError(f"environment_slots.{name} has a fixed value already")


def _check_loader(rule: RuleTable, program: str) -> None:
    name, given = loader(program), ", ".join(_given(rule))
    if name and given and rule.loader_ok is None:
        raise ValueError(
            f"{name} can run other programs, and callers give it {given}: they might run anything with it;"
            ' if not, say why not with loader_ok = "…"'
        )


def _given(rule: RuleTable) -> Iterator[str]:
    """What comes from callers."""
    yield from (f"{{{name}}}" for name in rule.slots)
    yield from rule.environment_slots
    if rule.stdin != "none":
        yield "its standard input"
