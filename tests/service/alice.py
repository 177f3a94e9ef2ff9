"""alice, a caller of the example, and the command by which she sees whether anything was lost."""

from __future__ import annotations

from rexec_client import Client, ExecutionHandle
from tests.production.deployed import Deployed

SECONDS = 120
# It lives until it is told to end, and says what it was told.
RULE = """
[[rule]]
name = "cat"
arguments = ["/bin/cat"]
callers = ["alice"]
stdin = "open"
loader_ok = "callers give it no argument"
"""


def connect(example: Deployed) -> Client:
    """Connect with her certificate."""
    return Client(
        f"127.0.0.1:{example.ports[0]}",
        cert=example.path("callers/alice/alice.pem"),
        key=example.path("callers/alice/alice.key"),
        ca=example.path("ca.pem"),
    )


def token(example: Deployed) -> str:
    """A fresh one of hers."""
    return example.run(f"cd {example.directory}; rexec --key-file callers/alice/alice.jwk token").stdout.strip()


def begin(alice: Client) -> ExecutionHandle:
    """A command of which half is done."""
    execution = alice.start(["cat"], stdin=True)
    execution.write(b"before\n")
    return execution


def is_whole(execution: ExecutionHandle) -> None:
    """It still runs: it takes input, has lost nothing that it said, and ends as it should."""
    execution.write(b"and after\n")
    execution.close_stdin()
    with execution.output() as output:
        said = b"".join(chunk.data for chunk in output)
    assert said == b"before\nand after\n"
    assert execution.wait(SECONDS).exit_code == 0
