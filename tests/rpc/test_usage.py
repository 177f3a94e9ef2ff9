"""The usage of a command is the command's own."""

from __future__ import annotations

import pytest

from tests.rpc.calls import run
from tests.servers import Server

# `true` maps its C library and needs this much at most; an interpreter, whose child it was, needs three times as much.
SMALL_BYTES = 4 << 20


@pytest.mark.xfail(
    strict=True, reason="T5 waits for the native shim: exec inherits the high-water mark of the process that it leaves"
)
def test_t5_a_small_commands_memory_is_small(server: Server) -> None:
    """T5: max_rss_bytes of a small command is its own, and not that of the process it was forked from."""
    usage = run(server, "/bin/true").execution.usage
    assert 0 < usage.max_rss_bytes < SMALL_BYTES
