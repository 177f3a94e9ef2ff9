"""A file system that does not answer, on which a rule has paths: its caller waits, and no other."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from tests.hanging import hanging_directory
from tests.production.site import RULES, Site
from tests.rpc.calls import joined, request
from tests.waiting import eventually

PATHS = """
[[rule]]
name = "show"
arguments = ["/bin/echo", "shown", "{{path}}"]
callers = ["alice"]
slots.path = {{ type = "path", root = "{root}" }}
"""


def test_a_path_that_hangs_keeps_no_other_caller_waiting(make_site: Callable[..., Site], tmp_path: Path) -> None:
    """While one caller's path is looked at for as long as it takes, another's command runs; then the one is told."""
    with hanging_directory(tmp_path / "hanging") as hanging:
        site = make_site(rules=PATHS.format(root=hanging.directory) + RULES)
        site.prefix = hanging.prefix
        site.start()
        asked = request("echo", "shown", f"{hanging.directory}/x", exec_id="hangs")
        call = site.certified("alice").Exec.future(asked, timeout=60)
        hanging.await_victim()
        answer = site.certified("bob").Exec(request("echo", "hi", wait=30), timeout=40)
        assert joined(answer.chunks) == b"hi\n"
        hanging.answer(errno.EIO)
        with pytest.raises(grpc.RpcError):
            call.result()
        assert call.code() in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAVAILABLE)


def test_who_hangs_up_before_it_is_decided_is_in_the_audit(make_site: Callable[..., Site], tmp_path: Path) -> None:
    """A refusal that its caller does not wait for is one all the same."""
    with hanging_directory(tmp_path / "hanging") as hanging:
        site = make_site(rules=PATHS.format(root=hanging.directory) + RULES)
        site.prefix = hanging.prefix
        site.start()
        call = site.certified("alice").Exec.future(request("echo", "shown", "x", exec_id="left"), timeout=60)
        hanging.await_victim()
        call.cancel()
        line = eventually(lambda: [line for line in site.audited if line.get("exec_id") == "left"])[0]
        assert (line["event"], line["caller"]) == ("denied", "alice")
        hanging.answer(errno.EIO)
