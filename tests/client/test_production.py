"""The client and the command against a server that trusts nobody: a key, or a certificate, proves who calls."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from rexec_client import Client, PermissionDeniedError, UnauthenticatedError, key_file
from rexec_client.cli.app import run_app
from tests.production.site import DOMAIN, Site, running


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One production server for all of these tests."""
    with running(tmp_path_factory.mktemp("site")) as site:
        yield site


def token_target(site: Site) -> str:
    return f"localhost:{site.token_port}"


def test_a_key_file_runs_a_command(site: Site) -> None:
    """From a key file to a result: start, output and end, each call with a token that the server takes."""
    with Client(token_target(site), key_file=site.key_file("alice"), ca=site.path("ca.pem")) as client:
        assert client.info().caller == "alice"
        assert client.run(["echo", "hi"]).stdout == b"hi\n"
        assert client.run(["cat"], input=b"x" * (2 << 20)).stdout == b"x" * (2 << 20)


def test_a_certificate_runs_a_command(site: Site) -> None:
    """The same with a client certificate, on the listener that asks for one."""
    cert, key = site.certificate_files("bob")
    with Client(f"localhost:{site.certificate_port}", ca=site.path("ca.pem"), cert=cert, key=key) as client:
        assert client.info().caller == "bob"
        assert client.run(["echo", DOMAIN]).stdout == f"{DOMAIN}\n".encode()


def test_a_retried_start_is_the_same_execution(site: Site) -> None:
    """A new token for the retry does not make a second command of it: the id counts."""
    with Client(token_target(site), key_file=site.key_file("alice"), ca=site.path("ca.pem")) as client:
        first = client.start(["echo", "once"], exec_id="client-once")
        again = client.start(["echo", "once"], exec_id="client-once")
    assert (first.already_existed, again.already_existed) == (False, True)


def test_a_token_for_looking_starts_nothing(site: Site) -> None:
    """Its holder sees what the caller sees, and the server refuses the rest."""
    looking = key_file(site.key_file("alice"), read_only=True)
    with Client(token_target(site), credentials=looking, ca=site.path("ca.pem")) as client:
        assert client.info().caller == "alice"
        with pytest.raises(PermissionDeniedError):
            client.start(["echo", "no"])


def test_a_name_proves_nothing(site: Site) -> None:
    """What a --dev server takes for a caller is refused here."""
    named = Client(token_target(site), caller="alice", ca=site.path("ca.pem"))
    with named as client, pytest.raises(UnauthenticatedError):
        client.info()


def test_the_command_works_through_options_alone(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    """`rexec` with a key file, and with a certificate, runs a command and shows whose it is."""
    ca = f"--ca={site.path('ca.pem')}"
    by_key = [f"--target={token_target(site)}", ca, f"--key-file={site.key_file('alice')}"]
    assert run_app([*by_key, "run", "--no-stdin", "--", "echo", "by key"]) == 0
    assert capfd.readouterr().out == "by key\n"
    cert, key = site.certificate_files("alice")
    by_cert = [f"--target=localhost:{site.certificate_port}", ca, f"--cert={cert}", f"--key={key}"]
    assert run_app([*by_cert, "list", "--json"]) == 0
    callers = re.findall(r'"caller": "(.*)"', capfd.readouterr().out)
    assert set(callers) == {"alice"}


def test_a_command_without_input_runs_at_a_terminal_and_not_behind_a_pipe(site: Site) -> None:
    """A rule takes no standard input unless it says so: a terminal is then left alone, and a pipe is refused."""
    line = [sys.executable, "-m", "rexec_client", f"--target={token_target(site)}", f"--ca={site.path('ca.pem')}"]
    line += [f"--key-file={site.key_file('alice')}", "run", "--", "echo", "typed"]
    master, slave = os.openpty()
    done = subprocess.run(["setsid", "--ctty", *line], stdin=slave, capture_output=True, timeout=30)
    os.close(master)
    os.close(slave)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"typed\n", b"")
    done = subprocess.run(line, input=b"important", capture_output=True, timeout=30)
    assert (done.returncode, done.stdout) == (255, b"")
    assert done.stderr.startswith(b"rexec: this command takes no standard input; use: rexec run -n")
    assert subprocess.run(line, input=b"", capture_output=True, timeout=30).stdout == b"typed\n"
