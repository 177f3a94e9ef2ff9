"""Client for rexec: runs commands on a machine somewhere else, and never loses or invents a result.

    from rexec_client import Client

    with Client() as client:
        print(client.run(["uname", "-r"], check=True).stdout.decode())

`AsyncClient` is the same with `await`. See `Client.run`, `Client.start`, and errors.py for what can go wrong.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from rexec_client.version import __version__ as __version__

if TYPE_CHECKING:
    from rexec_client.api import *  # noqa: F403


# Names are fetched at their first use: importing gRPC takes longer than most commands that the `rexec` command
# runs, and its --help needs none of it.
def __getattr__(name: str) -> Any:
    if name.startswith("_") and name != "__all__":
        raise AttributeError(name)
    return getattr(importlib.import_module("rexec_client.api"), name)


def __dir__() -> list[str]:
    return [*importlib.import_module("rexec_client.api").__all__, "__version__"]
