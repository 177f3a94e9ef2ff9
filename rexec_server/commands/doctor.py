"""`rexec-server doctor`: what is wrong with this machine or configuration, and what to change."""

from __future__ import annotations

import json

import click

from rexec_server.config import ConfigError
from rexec_server.doctor.checks import examine
from rexec_server.doctor.finding import Finding, Level, fail
from rexec_server.doctor.host import Host
from rexec_server.doctor.subject import Subject

_COLORS = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "red"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object: ok, and findings.")
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """Checks machine, state directory and configuration. Changes nothing.

    Give it the server's flags, before `doctor`: rexec-server --config FILE.toml doctor. Exit code 0 when nothing
    fails, else 1.
    """
    try:
        findings = list(examine(Subject(context.obj(), Host())))
    except ConfigError as error:
        findings = [
            fail("configuration", str(error), "correct the flag, the variable or the file; rexec-server --help")
        ]
    healthy = all(finding.level is not Level.FAIL for finding in findings)
    if as_json:
        click.echo(json.dumps({"ok": healthy, "findings": [finding._asdict() for finding in findings]}, indent=1))
    else:
        for finding in findings:
            _show(finding)
    context.exit(0 if healthy else 1)


def _show(finding: Finding) -> None:
    level = click.style(f"{finding.level:<4}", fg=_COLORS[finding.level])
    click.echo(f"{level}  {finding.check}: {finding.found}")
    if finding.change:
        click.echo(f"      → {finding.change}")
