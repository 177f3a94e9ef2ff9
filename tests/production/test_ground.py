"""What a production server stands on: its directory, its configuration, and who is a caller when a call ends."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from rexec.v1 import execution_service_pb2 as api

from rexec_server.config import ConfigError, build
from tests.production.site import Site
from tests.waiting import eventually


def test_a_state_directory_that_others_can_write(make_site: Callable[..., Site]) -> None:
    """Another user could be our runner there, and would be given every command with its secrets: refused."""
    site = make_site()
    site.state_dir.mkdir(mode=0o777)
    site.state_dir.chmod(0o777)
    assert "can be written by others" in site.refused()


def test_a_state_directory_of_somebody_else(make_site: Callable[..., Site]) -> None:
    """It must be ours."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to give a directory away")
    site = make_site()
    site.state_dir.mkdir(mode=0o700)
    os.chown(site.state_dir, 65534, 65534)
    assert "belongs to uid 65534" in site.refused()


def test_the_runner_refuses_such_a_directory_too(tmp_path: Path) -> None:
    """It may be root, and would work in what another user prepared."""
    state_dir = tmp_path / "state"
    state_dir.mkdir()
    state_dir.chmod(0o777)
    command = [sys.executable, "-m", "rexec_server.runner", "--state-dir", str(state_dir), "--idle-exit", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 78
    assert done.stderr.count("\n") == 1
    assert "others can write in it" in done.stderr


def test_t_cf_02_a_configuration_that_others_can_write(make_site: Callable[..., Site]) -> None:
    """Whoever can write it chooses the callers and the rules."""
    site = make_site()
    site.write("rexec.toml", b"")
    Path(site.path("rexec.toml")).chmod(0o666)
    assert "can be written by others" in site.refused()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("caller_calls", "1/s"),
        ("caller_starts", "1/s"),
        ("all_starts", "1/s"),
        ("failed_auth", "1/s"),
        ("gateway_behind_proxy", True),
    ],
)
def test_dev_goes_with_no_setting_for_production(name: str, value: object) -> None:
    """A limit that would not hold, or a proxy that publishes an open shell, is refused and not ignored."""
    with pytest.raises(ConfigError, match=f"--dev lets everybody in, so it does not go with {name}"):
        build({"dev": True, name: value})


def test_t_au_11_a_call_that_waits_is_answered_to_who_is_a_caller_then(make_site: Callable[..., Site]) -> None:
    """Disabled while Exec and Poll wait for the end, a caller does not get what they answer."""
    site = make_site()
    site.start()
    stub = site.stub()
    request = api.ExecRequest(exec_id="long", arguments=["sleep", "6"], wait={"seconds": 30})
    waiting = stub.Exec.future(request, metadata=site.bearer("alice"), timeout=60)
    eventually(lambda: _runs(site, "long"))
    polling = stub.Poll.future(
        api.PollRequest(exec_id="long", offset=0, wait={"seconds": 30}), metadata=site.bearer("alice"), timeout=60
    )
    site.disabled.add("alice")
    site.write_callers()
    site.reload()
    for call in (waiting, polling):
        error = call.exception()
        assert isinstance(error, grpc.RpcError)
        assert error.code() == grpc.StatusCode.UNAUTHENTICATED


def _runs(site: Site, exec_id: str) -> bool:
    request = api.PollRequest(exec_id=exec_id, caller="alice")
    try:
        return bool(site.certified("olga").Poll(request).execution.pid)
    except grpc.RpcError:
        return False
