"""Reading the files again, one SIGHUP after the other, whatever goes wrong."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rexec_server.config import build
from rexec_server.core.command import Command
from rexec_server.policy.caller import Caller
from rexec_server.policy.callers import Callers
from rexec_server.production import ProductionSecurity
from tests.production.site import RULES, Site


@pytest.fixture
def site(make_site: Callable[..., Site]) -> Site:
    return make_site()


@pytest.fixture
def security(site: Site) -> Iterator[ProductionSecurity]:
    """What a server is built from; nothing is started."""
    made = ProductionSecurity(build(site.settings))
    made.check_host([])
    yield made
    made.close()


class Broken:
    """An authenticator with a mistake in it."""

    def replace(self, _callers: Callers) -> None:
        raise RuntimeError("nobody thought of that")


class Meeting:
    """An authenticator that notices when two reload at a time."""

    def __init__(self) -> None:
        self.met = False
        self._barrier = threading.Barrier(2)

    def replace(self, _callers: Callers) -> None:
        try:
            self._barrier.wait(timeout=0.2)
        except threading.BrokenBarrierError:
            self._barrier.reset()
        else:
            self.met = True


def test_what_nobody_thought_of_keeps_one_part_only(
    site: Site, security: ProductionSecurity, caplog: pytest.LogCaptureFixture
) -> None:
    """A mistake of ours is in the log with its place; the other parts are read all the same, and the audit goes on."""
    security.authenticator = Broken()  # type: ignore[assignment]
    renamed = Path(f"{site.audit}.1")
    site.audit.rename(renamed)
    caplog.set_level("INFO")
    security.reload()
    assert site.audit.exists()
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert record.getMessage().startswith("callers NOT reloaded")
    assert record.exc_info
    assert "policy reloaded" in caplog.text
    assert "audit reopened" in caplog.text
    told = renamed.read_text()
    assert '"reload_failed"' in told
    assert '"RuntimeError; the log has more"' in told


def test_one_reload_at_a_time(security: ProductionSecurity) -> None:
    """What is read last is what counts, so a second SIGHUP waits until the first one's files are in force."""
    security.authenticator = meeting = Meeting()  # type: ignore[assignment]
    threads = [threading.Thread(target=security.reload) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not meeting.met


def test_t_cn_10_a_reload_asks_the_host_too(
    site: Site, security: ProductionSecurity, caplog: pytest.LogCaptureFixture
) -> None:
    """T-CN-10: rules that the host cannot keep do not come into force later; the old ones stay."""
    site.write("policy.toml", RULES.replace('name = "echo"', 'name = "limited"\ncgroup.memory = "64M"').encode())
    security.reload()
    assert security.admission.admit(Caller("alice"), Command(arguments=("echo", "hi"))).rule == "echo"
    assert "policy NOT reloaded" in caplog.text
    (failed,) = [line for line in site.audited if line["event"] == "reload_failed"]
    assert failed["what"] == "policy"
    assert "cgroup.memory needs" in failed["error"]
