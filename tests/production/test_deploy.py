"""The example in deploy/ works as its README says: every line of it that can be typed is typed here."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import load_pem_x509_certificate

from bench.http2_flood import Flood
from tests.page.browser import CHROMEDRIVER, CHROMIUM, WIDE, Browser, Page
from tests.production.deployed import ROOT, Deployed
from tests.runner import users
from tests.waiting import eventually


@pytest.fixture(scope="module")
def three_users() -> Iterator[Deployed]:
    """Server, commands and runner as three users."""
    environment = users.environment()
    example = Deployed()
    try:
        runner, server = example.block("Start it").split(), example.block("Start it", 1).split()
        assert (runner[0], server[server.index("--") + 1]) == ("rexec-runner", "rexec-server")
        example.start(sys.executable, "-m", "rexec_server.runner", *runner[1:])
        program = server.index("rexec-server")
        line = [*server[:program], users.PYTHON, "-P", "-m", "rexec_server", *server[program + 1 :]]
        example.start(*line, environment=environment)
        example.await_listening()
        yield example
    finally:
        example.close()


def test_the_rexec_command(three_users: Deployed) -> None:
    """With a key and with a certificate; what it runs is nobody's."""
    done = three_users.run(three_users.block("rexec"))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:2] == ["the second line", "the last line"]
    assert lines[2].startswith(f"uid={users.COMMAND.pw_uid}({users.COMMAND.pw_name})")
    assert "0(root)" not in lines[2]


def test_a_stranger_gets_no_further_than_the_handshake(three_users: Deployed) -> None:
    """The first listener of the example asks for a certificate: without one no header is read."""
    flood = Flood(("127.0.0.1", three_users.ports[0]), three_users.path("ca.pem"), frames=20, seconds=60)
    assert flood.run().disconnected == 1
    done = three_users.run(three_users.block("Python"))
    assert done.returncode == 0, done.stderr


def test_the_python_client(three_users: Deployed) -> None:
    """As the README has it."""
    done = three_users.run(three_users.block("Python"))
    assert (done.returncode, done.stdout) == (0, "hello from Python\n"), done.stderr


@pytest.mark.parametrize(
    ("section", "said"),
    [("grpcurl with a certificate", "hello from grpcurl"), ("grpcurl with a token", "hello from a token")],
)
def test_grpcurl(three_users: Deployed, section: str, said: str) -> None:
    """It needs the authority, and what proves the caller."""
    done = three_users.run(three_users.block(section))
    assert done.returncode == 0, done.stderr
    reply = json.loads(done.stdout)
    assert reply["execution"]["caller"] == "alice"
    assert reply["execution"]["state"] == "STATE_SUCCEEDED"
    assert "".join(chunk["text"] for chunk in reply["chunks"]) == f"{said}\n"


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("httpie, the token in the URL", "the second line\nthe last line"),
        ("httpie, the token in the header", "from the header"),
    ],
)
def test_httpie(three_users: Deployed, section: str, said: str) -> None:
    """One token starts a command, and shows how it goes."""
    done = three_users.run(three_users.block(section))
    assert done.returncode == 0, done.stdout + done.stderr
    accepted, polled = map(json.loads, filter(None, done.stdout.splitlines()))
    assert accepted["status"] == "accepted"
    assert polled["exec_id"] == accepted["exec_id"]
    # On a machine that is busy the output may come after the first look.
    asked = three_users.run(
        f"cd {three_users.directory}; rexec --key-file callers/alice/alice.jwk token"
    ).stdout.strip()
    look = f"{three_users.gateway}/api/poll/{asked}"
    shown = polled["output"] or eventually(lambda: _get(look, three_users.path("ca.pem"))["output"])
    assert shown == said


def test_the_page(three_users: Deployed, tmp_path: Path) -> None:
    """In a browser that trusts the certificate: alice gives her key once, starts a command and sees its output."""
    if not (CHROMIUM and CHROMEDRIVER):
        pytest.skip("the page's tests need chromium and chromedriver: apt-get install chromium chromium-driver")
    certificate = load_pem_x509_certificate(Path(three_users.path("server/server.pem")).read_bytes())
    spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    trusted = base64.b64encode(hashlib.sha256(spki).digest()).decode()
    browser = Browser(tmp_path / "chromium", f"--ignore-certificate-errors-spki-list={trusted}")
    try:
        page = Page(browser, three_users).open()  # type: ignore[arg-type]
        browser.look(WIDE)
        eventually(lambda: page.sees("#key-file"))
        page.find("#key-file").send_keys(three_users.path("callers/alice/alice.jwk"))
        eventually(lambda: page.text("#caller") == "as alice")
        page.start("echo 'from the page'")
        eventually(lambda: list(page.rows) == ["from the page"])
        page.click("#start")
        page.type("[name=shell]", "cat /etc/shadow")
        page.click("#start-form [type=submit]")
        eventually(lambda: "not permitted" in page.text("#start-error"))
    finally:
        browser.close()


def _get(url: str, ca: str) -> Any:
    with urllib.request.urlopen(url, context=ssl.create_default_context(cafile=ca), timeout=60) as answer:
        return json.load(answer)


def test_what_is_denied(three_users: Deployed) -> None:
    """What no rule allows is not run, and nothing is said of what there is."""
    done = three_users.run(three_users.block("What is denied"))
    assert done.returncode == 255
    assert "not permitted" in done.stderr
    assert "shadow" not in done.stdout


def test_the_audit_has_it(three_users: Deployed) -> None:
    """Who ran what, by which rule, as whom, and how it ended."""
    done = three_users.run(three_users.block("rexec") + three_users.block("Look at the audit"))
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [line["event"] for line in lines] == ["accepted", "finished"] * 2
    assert {line["rule"] for line in lines} == {"tail-log", "who"}
    assert {line["user"] for line in lines} == {users.COMMAND.pw_uid}


def test_who_is_root_and_who_is_not(three_users: Deployed) -> None:
    """Only the runner is; the server's own process and its gateway are closed to other processes of their user."""
    found = {}
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # it has just ended
            line = " ".join(process.cmdline())
            if str(three_users.directory) in line and "setpriv" not in line:
                found[line] = process
    names = {
        "gateway": "rexec_server.gateway", "ingress": "rexec_server.ingress", "runner": "rexec_server.runner",
        "server": "-m rexec_server --config",
    }  # fmt: skip
    by_name = {name: next(found[line] for line in found if module in line) for name, module in names.items()}
    assert by_name["runner"].uids().effective == 0
    for name in ("server", "gateway", "ingress"):
        assert set(by_name[name].uids()) == {users.SERVER.pw_uid}
        assert by_name[name].gids().effective == users.SERVER.pw_gid
        # Of a process that is not dumpable, these belong to root, whoever it runs as.
        assert os.stat(f"/proc/{by_name[name].pid}/environ").st_uid == 0


def test_no_token_and_no_key_is_in_any_log(three_users: Deployed) -> None:
    """T-LG-01 of the example: neither a token nor a caller's secret is in what the programs wrote."""
    token = three_users.run(
        f"cd {three_users.directory}; rexec --key-file callers/alice/alice.jwk token; "
        + three_users.block("httpie, the token in the URL")
    ).stdout
    assert token
    secret = json.loads(Path(three_users.path("callers/alice/alice.jwk")).read_text())["k"]
    audit = Path(three_users.path("audit/audit.jsonl")).read_text()
    for written in (three_users.log, audit):
        assert "eyJ" not in written
        assert secret not in written


def test_one_user(request: pytest.FixtureRequest) -> None:
    """Without root the same script makes an example for one user, which says so, and works."""
    environment, maker = None, [sys.executable]
    if os.geteuid() == 0:
        environment, maker = users.environment(), [*users.prefix(users.COMMAND), users.PYTHON]
    example = Deployed(maker, environment)
    request.addfinalizer(example.close)
    assert "One user is server, runner and commands" in example.told
    assert "they can read the server's keys" in example.told
    line = example.block("Start it").split()
    example.start(*maker, "-P", "-m", "rexec_server", *line[1:], environment=environment)
    example.await_listening()
    done = example.run(example.block("grpcurl with a certificate"))
    assert "hello from grpcurl" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["/"], "is not empty"),
        (["/tmp/it's here"], "choose a plainer path"),
        (["{free}", "--server-user", "nobody-of-this-name"], "there is no user" if os.geteuid() == 0 else "only root"),
        (["{free}", "--server-user", "root"], "neither of them root" if os.geteuid() == 0 else "only root"),
    ],
)
def test_what_it_refuses_to_make(tmp_path: Path, flags: list[str], sentence: str) -> None:
    """One line, and nothing is made."""
    free = tmp_path / "free"
    line = [sys.executable, ROOT / "deploy" / "example.py", *(flag.format(free=free) for flag in flags)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not free.exists()
