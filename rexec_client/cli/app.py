"""The group of commands, and what becomes of a failure: one line, and a status."""

from __future__ import annotations

import os
from typing import Any

import click

from rexec_client.cli.connection_options import connection_options, settings_of
from rexec_client.cli.exit_status import FAILED, INTERRUPTED, NOBODY_READS
from rexec_client.cli.lazy import LazyGroup
from rexec_client.cli.telling import hush_stdout, tell
from rexec_client.version import __version__

# In the order in which a newcomer meets them.
COMMANDS = ("run", "exec", "poll", "follow", "list", "signal", "cancel", "delete", "info", "token", "completion")

HELP = {"help_option_names": ["-h", "--help"]}


@click.group(cls=LazyGroup, package="rexec_client.cli.commands", names=COMMANDS, context_settings=HELP)
@connection_options
@click.version_option(__version__, "--version", message="rexec %(version)s")
@click.pass_context
def app(ctx: click.Context, /, **options: Any) -> None:
    """Run commands on a machine somewhere else, and never lose a result.

    \b
      rexec run -- ls -l            as if it ran here: output, exit code, Ctrl-C
      rexec exec -- make nightly    start it and print its id
      rexec follow ID               see its output, now or later
    """
    ctx.obj = settings_of(ctx, options)


def run_app(arguments: list[str]) -> int:
    """Run the command line; the result is the exit status. rexec's own failures are always 255, as ssh's are."""
    # gRPC writes to stderr by itself, into what the command wrote there.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        return app.main(arguments or ["--help"], prog_name="rexec", standalone_mode=False) or 0
    except click.UsageError as error:
        tell(error.format_message() + (f" See: {error.ctx.command_path} --help" if error.ctx else ""))
    except click.ClickException as error:
        tell(error.format_message())
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        hush_stdout()
        return NOBODY_READS
    return FAILED
