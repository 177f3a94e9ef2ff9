"""`rexec-server policy`: what a policy file says, without a server."""

from __future__ import annotations

import json
import os
import shlex

import click

from rexec_server.core.command import Command
from rexec_server.core.errors import RexecError
from rexec_server.core.grant import Grant
from rexec_server.policy.allowlist import Allowlist
from rexec_server.policy.caller import Caller
from rexec_server.policy.files import PolicyError


@click.group()
def command() -> None:
    """Checks a policy file, and says what it allows."""


@command.command()
@click.argument("file", metavar="FILE")
def check(file: str) -> None:
    """Checks FILE as a server does when it starts, and runs the tests in it. Exit code 78 when it cannot be used."""
    allowlist = _load(file)
    click.echo(f"{file}: {_count(len(allowlist.rules), 'rule')}, {_count(allowlist.tests, 'test')}: good")


@command.command()
@click.option("--policy", "file", metavar="FILE", envvar="REXEC_POLICY", required=True, help="[REXEC_POLICY]")
@click.option("--caller", metavar="NAME", required=True, help="Who asks.")
@click.option("--role", "roles", metavar="ROLE", multiple=True, help="A role of the caller; may be repeated.")
@click.option("--env", "variables", metavar="NAME=VALUE", multiple=True, help="Of the request; may be repeated.")
@click.option("--shell", metavar="LINE", help="A line, instead of arguments.")
@click.argument("arguments", nargs=-1, metavar="[-- ARGUMENT...]")
def explain(
    file: str,
    caller: str,
    roles: tuple[str, ...],
    variables: tuple[str, ...],
    shell: str | None,
    arguments: tuple[str, ...],
) -> None:
    """Says what would be run for a caller, by which rule; or why each rule does not allow it, with exit code 1."""
    asking = Caller(caller, frozenset(roles))
    asked = Command(arguments=arguments, shell=shell or "", environment_variables=dict(map(_variable, variables)))
    allowlist = _load(file)
    try:
        asked.check()
        grant = allowlist.decide(asking, asked)
    except RexecError as error:
        click.echo(f"denied: {error}")
        for verdict in allowlist.explain(asking, asked):
            click.echo(f"  {verdict.rule}: {verdict.reason or 'allows it'}")
        raise SystemExit(1) from error
    _show(grant)


def _load(file: str) -> Allowlist:
    try:
        return Allowlist.load(file)
    except PolicyError as error:
        click.echo(f"rexec-server: {error}", err=True)
        raise SystemExit(os.EX_CONFIG) from error


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise click.UsageError(f"--env {text!r}: write NAME=VALUE")
    return name, value


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _show(grant: Grant) -> None:
    """Everything that is decided, but for the values of variables: there may be secrets among them."""
    click.echo(f"allowed by rule {grant.rule!r}")
    rows = {
        "arguments": json.dumps(grant.arguments, ensure_ascii=False),
        "as typed": shlex.join(grant.arguments),
        "user": _user(grant),
        "directory": grant.working_directory,
        "variables": ", ".join(sorted(grant.environment or {})),
        "timeout": "the server's" if grant.timeout is None else f"{grant.timeout:g} s",
        "output": f"{grant.output_bytes} bytes" if grant.output_bytes else "the server's",
        "umask": f"{grant.umask or 0:04o}",
        "limits": _fields(grant.limits._asdict() if grant.limits else {}),
        "confined by": _confinement(grant),
        "at once": "any number" if grant.max_running is None else str(grant.max_running),
    }
    for name, value in rows.items():
        click.echo(f"  {name:<12} {value}")


def _user(grant: Grant) -> str:
    confinement = grant.confinement
    if confinement.user is None:
        return "the runner's"
    groups = " ".join(map(str, confinement.groups)) or "none"
    return f"uid {confinement.user}, gid {confinement.group}, further groups {groups}"


def _confinement(grant: Grant) -> str:
    confinement = grant.confinement
    flags = [name for name in ("no_new_privileges", "drop_capabilities") if getattr(confinement, name)]
    sizes = {f"cgroup.{name}": getattr(confinement, name) for name in ("memory_bytes", "processes", "cpus")}
    return ", ".join([*flags, *([_fields(sizes)] if any(sizes.values()) else [])]) or "nothing"


def _fields(values: dict[str, float]) -> str:
    return (
        ", ".join(
            f"{name} {value:g}" if value % 1 else f"{name} {int(value)}" for name, value in values.items() if value
        )
        or "none"
    )
