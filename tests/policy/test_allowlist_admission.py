"""How often rules may be used: per rule and caller, per caller, and by all together; also across a reload."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from rexec_server.core.errors import Exhausted, NotAllowed
from rexec_server.policy.allowlist import AllowlistAdmission
from rexec_server.policy.caller import Caller
from rexec_server.policy.rate import Rate
from tests.policy.policies import ALICE, BOB, CI, ask, load, rule, slot

WORD = slot("type = 'enum', values = ['a']")
BOTH = rule(more=f"{WORD}\nrate = '2/h'") + rule('["/bin/ls"]', name="ls")
RULES = BOTH.replace('["alice"]', '["alice", "bob"]')
ECHO, LS = ask("echo", "a"), ask("ls")


def exhausted(admission: AllowlistAdmission, caller: Caller = ALICE, times: int = 2) -> Exhausted:
    """Uses it so often, and then once too often."""
    for _ in range(times):
        admission.admit(caller, ECHO)
    with pytest.raises(Exhausted) as caught:
        admission.admit(caller, ECHO)
    return caught.value


def test_a_rules_rate_is_each_callers_own(tmp_path: Path) -> None:
    """One caller's use of a rule takes nothing from another's, nor from the caller's other rules."""
    admission = AllowlistAdmission(load(tmp_path, RULES), None, None)
    error = exhausted(admission)
    assert error.subject == "rule echo"
    assert 1700 < error.retry_after <= 1800
    assert exhausted(admission, BOB).subject == "rule echo"
    assert admission.admit(ALICE, LS).rule == "ls"


def test_a_callers_rate_is_for_all_rules(tmp_path: Path) -> None:
    """Starts of one caller are counted together, whatever is started."""
    admission = AllowlistAdmission(load(tmp_path, RULES.replace("2/h", "9/h")), Rate(2, 3600), None)
    admission.admit(ALICE, LS)
    error = exhausted(admission, times=1)
    assert (error.subject, error.message) == ("caller alice", "caller alice: started too often lately")
    assert admission.admit(BOB, ECHO).rule == "echo"


def test_the_rate_of_all(tmp_path: Path) -> None:
    """Starts of everybody are counted together."""
    admission = AllowlistAdmission(load(tmp_path, RULES), None, Rate(2, 3600))
    admission.admit(BOB, LS)
    assert exhausted(admission, times=1).subject == "all callers"


def test_what_is_denied_uses_up_nothing(tmp_path: Path) -> None:
    """Nobody can take others' share with requests that are refused anyway."""
    admission = AllowlistAdmission(load(tmp_path, RULES), Rate(2, 3600), Rate(2, 3600))
    for _ in range(5):
        with pytest.raises(NotAllowed):
            admission.admit(CI, ECHO)
        with pytest.raises(NotAllowed):
            admission.admit(ALICE, ask("echo", "b"))
    assert exhausted(admission).subject == "rule echo"


def test_a_reload_forgets_no_use(tmp_path: Path) -> None:
    """Only a rate that changed starts anew."""
    admission = AllowlistAdmission(load(tmp_path, RULES), None, None)
    exhausted(admission)
    admission.replace(load(tmp_path, RULES + rule('["/bin/cat"]', name="cat")))
    assert exhausted(admission, times=0).subject == "rule echo"
    assert admission.admit(ALICE, ask("cat")).rule == "cat"
    admission.replace(load(tmp_path, RULES.replace("2/h", "3/h")))
    assert exhausted(admission, times=3).subject == "rule echo"
    admission.replace(load(tmp_path, rule('["/bin/cat"]', name="cat")))
    with pytest.raises(NotAllowed):
        admission.admit(ALICE, ECHO)


def test_a_refused_start_uses_up_nothing(tmp_path: Path) -> None:
    """Who may start nothing more for now, by the rate of all or the caller's, does not pay for trying with a rule's."""
    for starts, all_starts, whose in ((Rate(1, 3600), None, "caller alice"), (None, Rate(1, 3600), "all callers")):
        admission = AllowlistAdmission(load(tmp_path, RULES), starts, all_starts)
        admission.admit(ALICE, LS)
        for _ in range(5):  # the rule would take two
            with pytest.raises(Exhausted) as caught:
                admission.admit(ALICE, ECHO)
            assert caught.value.subject == whose


def test_a_reload_is_never_seen_half_done(tmp_path: Path) -> None:
    """Files are read in another thread: what is admitted meanwhile is so by the old rules, or by the new ones."""
    admission = AllowlistAdmission(load(tmp_path, RULES), Rate(10**9, 1), None)
    others = [load(tmp_path, RULES.replace('"echo"', f'"{name}"')) for name in ("one", "two")]
    done = threading.Event()

    def reload() -> None:
        while not done.is_set():
            for allowlist in others:
                admission.replace(allowlist)

    thread, interval = threading.Thread(target=reload), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread.start()
    try:
        for _ in range(2000):
            assert admission.admit(ALICE, LS).rule == "ls"
    finally:
        done.set()
        thread.join()
        sys.setswitchinterval(interval)
