"""`rexec-server`: flags over environment over file make one Config; then `app` serves.

Nothing here may import grpc before `_prepare_process` has run.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from rexec_client.cli.lazy import LazyGroup
from rexec_client.version import __version__
from rexec_server import memory
from rexec_server.config import Config, ConfigError, build, read_file
from rexec_server.engines.launcher import RunnerLauncher
from rexec_server.process import become_undumpable
from rexec_server.state_dir import StartRefused, claim

# A runner that we started and that has nothing to do ends by itself after this long.
RUNNER_IDLE_SECONDS = 60.0


@click.group(
    cls=LazyGroup,
    package="rexec_server.commands",
    names=("doctor", "keys", "policy"),
    invoke_without_command=True,
    context_settings={"auto_envvar_prefix": "REXEC", "help_option_names": ["-h", "--help"]},
)
@click.option("--config", metavar="FILE.toml", help="Settings; keys as the flags here. Flags and environment go first.")
@click.option(
    "--listen", multiple=True, metavar="ADDR", help="host:port or unix:PATH; may be repeated. [127.0.0.1:50051]"
)
@click.option(
    "--state-dir", metavar="DIR", help="Index, spool, sockets. [/var/lib/rexec, or the user's state directory]"
)
@click.option("--dev/--no-dev", default=None, help="Anybody on this machine is let in. Loopback only.")
@click.option("--callers", metavar="FILE.toml", help="Who may call: names, keys, certificates, roles.")
@click.option("--policy", metavar="FILE.toml", help="What may be run, by whom, and how.")
@click.option("--audit", metavar="WHERE", help="A file, or journald. [audit.jsonl in the state directory]")
@click.option("--audience", metavar="NAME", help="This server's name in tokens. [the host's name]")
@click.option("--tls-cert", metavar="FILE", help="Certificate chain (PEM) for all host:port of --listen.")
@click.option("--tls-key", metavar="FILE", help="The certificate's key (PEM).")
@click.option("--client-ca", metavar="FILE", help="Take callers with certificates of this authority (PEM), not tokens.")
@click.option("--max-running", metavar="N", help="Executions at once. [64]")
@click.option("--max-followers", metavar="N", help="Follow calls at once. [16384]")
@click.option("--caller-running", metavar="N", help="Executions of one caller at once. [--max-running]")
@click.option("--caller-followers", metavar="N", help="Follow calls of one caller at once. [--max-followers]")
@click.option("--caller-calls", metavar="RATE", help="Calls of one caller, such as 100/s. [no limit]")
@click.option("--caller-starts", metavar="RATE", help="Executions that one caller starts, such as 60/m. [no limit]")
@click.option("--all-starts", metavar="RATE", help="Executions that all callers start. [no limit]")
@click.option("--failed-auth", metavar="RATE", help="Failed credentials from one address that are answered. [20/s]")
@click.option("--max-timeout", metavar="TIME", help="Longest timeout of a command, and the default one. [none]")
@click.option("--tail-lines", metavar="N", help="Lines that a Poll without a start returns. [3]")
@click.option("--output-bytes", metavar="SIZE", help="Output kept per execution unless it says otherwise. [64M]")
@click.option("--waiting-timeout", metavar="TIME", help="How long a command waits for a reader that is gone. [1h]")
@click.option("--retention", metavar="TIME", help="How long ended executions are kept. [24h]")
@click.option("--keep-count", metavar="N", help="How many ended executions are kept. [10000]")
@click.option("--keep-bytes", metavar="SIZE", help="How much output of ended executions is kept. [10G]")
@click.option("--working-directory", metavar="DIR", help="Where commands start that do not say. [the current one]")
@click.option("--stop-grace", metavar="TIME", help="What calls get to finish when the server stops. [5s]")
@click.option("--end-on-stop/--no-end-on-stop", default=None, help="End what runs when the server stops. [go on]")
@click.option("--start-runner/--no-start-runner", default=None, help="Start rexec-runner when none answers. [start]")
@click.option("--channelz/--no-channelz", default=None, help="Serve grpc.channelz.v1. [off]")
@click.option(
    "--ingress/--no-ingress", default=None, help="Let a process screen connections for tokens; see security.md. [on]"
)
@click.option("--gateway", metavar="HOST:PORT", help="Where JSON and the page are served. [127.0.0.1:3000]")
@click.option("--no-gateway", is_flag=True, default=None, help="Serve gRPC alone.")
@click.option("--gateway-name", multiple=True, metavar="HOST", help="A host name under which the gateway is known.")
@click.option("--gateway-tls-cert", metavar="FILE", help="The gateway's certificate chain (PEM): it speaks TLS.")
@click.option("--gateway-tls-key", metavar="FILE", help="The certificate's key (PEM).")
@click.option("--gateway-behind-proxy", is_flag=True, default=None, help="A proxy before the gateway speaks TLS.")
@click.option("--gateway-max-streams", metavar="N", help="Event streams of the gateway at once. [256]")
@click.option("--gateway-caller-streams", metavar="N", help="Of these, one caller's. [a quarter, and 16 at least]")
@click.option("--metrics", metavar="HOST:PORT", help="Where Prometheus metrics, /livez and /readyz are served. [off]")
@click.option("--log-format", metavar="FORMAT", help="text, json, or auto: text at a terminal, else json. [auto]")
@click.option("--log-level", metavar="LEVEL", help="The least that is logged: debug, info, warning, error. [info]")
@click.version_option(__version__, prog_name="rexec-server")
@click.pass_context
def main(context: click.Context, /, config: str | None, **flags: Any) -> None:
    """Runs commands for callers who are somewhere else, and never loses or invents a result."""
    flags = {name: value for name, value in flags.items() if value not in (None, ())}
    if context.invoked_subcommand is not None:
        context.obj = lambda: _configuration(config, flags)  # one that needs it asks
        return
    try:
        _serve(_configuration(config, flags))
    except (ConfigError, StartRefused) as error:
        _refuse(str(error))


def _configuration(file: str | None, flags: dict[str, Any]) -> Config:
    """What flags, environment and file say together. ConfigError."""
    return build((read_file(file) if file else {}) | flags)


def _serve(config: Config) -> None:
    claimed = claim(config.state_dir, dev=config.dev)
    # In the one-user mode the runner is ours to start; else its own unit does that, and may be root.
    launcher = RunnerLauncher(config.state_dir, _runner_flags(config)) if config.start_runner else None
    if launcher:
        launcher.start_early()
    _prepare_process()
    if not config.dev:
        become_undumpable()
    from rexec_server.app import run  # imports grpc

    run(config, claimed, launcher)


def _runner_flags(config: Config) -> list[str]:
    flags = [
        "--idle-exit",
        str(RUNNER_IDLE_SECONDS),
        "--log-format",
        config.log_format,
        "--log-level",
        config.log_level,
    ]
    return [*flags, "--dev"] if config.dev else flags


def _refuse(why: str) -> None:
    click.echo(f"rexec-server: {why}", err=True)
    sys.exit(os.EX_CONFIG)


def _prepare_process() -> None:
    """What must be so before grpc is imported."""
    # The server never forks; should something in it do so all the same, gRPC's fork handlers would kill the child
    # before its exec in up to a quarter of the cases (grpc#43055).
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
    memory.keep_for_messages()


if __name__ == "__main__":
    main()
