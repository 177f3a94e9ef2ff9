"""`/api/<mode>/<uuid>`: what each mode answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.gateway.http import ask
from tests.servers import Server
from tests.waiting import eventually

Start = Callable[..., Server]
FOREVER = "sleep 1000"


def exec_(url: str, caller: str, cmd: str, **more: Any) -> Any:
    return ask(url, "POST", f"/api/exec/{caller}", {"cmd": cmd, **more}).json


def poll(url: str, caller: str) -> Any:
    return ask(url, "GET", f"/api/poll/{caller}").json


def finished(url: str, caller: str) -> tuple[Any, list[str]]:
    """Polls to the end: the last answer, and every line that was shown on the way."""
    lines: list[str] = []

    def end() -> Any:
        answer = poll(url, caller)
        lines.extend(answer["output"].split("\n") if answer.get("output") else [])
        return answer if answer["status"] == "finished" else None

    return eventually(end), lines


def test_before_any_exec_there_is_nothing_but_finished(url: str) -> None:
    """Who never started anything is told so in the plainest way."""
    assert poll(url, "nobody") == {"mode": "poll", "status": "finished"}
    assert ask(url, "POST", "/api/cancel/nobody").json == {"mode": "cancel", "status": "finished"}
    assert ask(url, "GET", "/api/follow/nobody").status == 404


def test_a_fast_command_is_not_lost(url: str) -> None:
    """The first poll right after `echo hi` has its output, however fast it comes."""
    for turn in range(20):
        assert exec_(url, f"c{turn}", "echo hi")["status"] == "accepted"
        assert poll(url, f"c{turn}")["output"] == "hi"


def test_a_finished_command_stays_finished(url: str) -> None:
    """Its last lines come once, its exit code until the next exec."""
    exec_(url, "me", "seq 10; exit 7")
    answer, lines = finished(url, "me")
    assert lines == ["8", "9", "10"]
    assert answer["exit_code"] == 7
    again = poll(url, "me")
    assert (again["status"], again["exit_code"], again["output"]) == ("finished", 7, "")


def test_a_poll_gives_the_newest_lines_that_were_not_seen(with_gateway: Start) -> None:
    """At most as many as the server is set to, counted from the last poll, and what is left out is told."""
    url = with_gateway("--tail-lines", "5").gateway
    exec_(url, "me", "seq 20; read x < /dev/zero")
    first = eventually(lambda: found if (found := poll(url, "me"))["output"] else None)
    assert first["output"].split("\n")[-5:] == ["16", "17", "18", "19", "20"]
    assert first["omitted_bytes"] == len("".join(f"{n}\n" for n in range(1, 16)))
    assert poll(url, "me")["output"] == ""


def test_both_channels_are_one_console_in_the_order_in_which_it_was_written(url: str) -> None:
    """Standard error stands between the lines of standard output, so the newest lines are the newest of both."""
    exec_(url, "me", "echo o1; echo e1 >&2; echo o2")
    assert finished(url, "me")[1] == ["o1", "e1", "o2"]
    exec_(url, "you", "for i in $(seq 100); do echo o$i; echo e$i >&2; done; echo e101 >&2; echo o102")
    assert finished(url, "you")[1][-3:] == ["e100", "e101", "o102"]


def test_an_unfinished_line_is_shown_and_shown_again_when_it_grew(url: str, tmp_path: Any) -> None:
    """A prompt is seen while it waits, and the line that it becomes is seen whole."""
    gate = tmp_path / "gate"
    exec_(url, "me", f"printf 'name? '; until [ -e {gate} ]; do sleep 0.01; done; echo you")
    assert eventually(lambda: poll(url, "me")["output"]) == "name? "
    assert poll(url, "me")["output"] == ""
    gate.touch()
    assert finished(url, "me")[1] == ["name? you"]


def test_polls_with_either_method_and_no_body(url: str) -> None:
    """POST needs no body, GET has none, and both say the same."""
    assert ask(url, "POST", "/api/poll/me").json == ask(url, "GET", "/api/poll/me").json


def test_ends_that_are_not_exit_codes(url: str) -> None:
    """A signal is a signal, and a command that cannot be started is an error: neither is an exit code."""
    exec_(url, "killed", "kill -9 $$")
    answer, _ = finished(url, "killed")
    assert answer["signal"] == 9
    assert "exit_code" not in answer
    exec_(url, "nowhere", "true", cwd="/no/such/directory")
    answer, _ = finished(url, "nowhere")
    assert "/no/such/directory" in answer["error"]
    assert "exit_code" not in answer


def test_timeout_cwd_and_env(url: str, tmp_path: Any) -> None:
    """They are what they say."""
    exec_(url, "me", "pwd; echo $COLOUR", cwd=str(tmp_path), env={"COLOUR": "blue"})
    assert finished(url, "me")[1] == [str(tmp_path), "blue"]
    exec_(url, "late", FOREVER, timeout=0.2)
    assert finished(url, "late")[0]["reason"] == "timed out"


def test_cancel_ends_the_running_command(url: str) -> None:
    """And then the next may be started."""
    exec_(url, "me", FOREVER)
    assert ask(url, "POST", "/api/cancel/me").json["status"] == "cancelled"
    answer, _ = finished(url, "me")
    assert answer["reason"] == "cancelled"
    assert exec_(url, "me", "true")["status"] == "accepted"


def test_two_callers_do_not_see_or_block_each_other(url: str) -> None:
    """Each has one command at a time, and each its own."""
    assert exec_(url, "ann", f"echo ann; {FOREVER}")["status"] == "accepted"
    assert exec_(url, "bob", f"echo bob; {FOREVER}")["status"] == "accepted"
    for caller in ("ann", "bob"):
        assert poll(url, caller)["output"] == caller
    ask(url, "POST", "/api/cancel/ann")
    assert finished(url, "ann")[0]["reason"] == "cancelled"
    assert poll(url, "bob")["status"] == "running"


def test_with_one_place_the_second_caller_is_busy(with_gateway: Start) -> None:
    """--max-running 1 is one command at a time for everybody."""
    url = with_gateway("--max-running", "1").gateway
    assert exec_(url, "ann", FOREVER)["status"] == "accepted"
    assert exec_(url, "bob", "true") == {"mode": "exec", "status": "busy"}


def test_of_fifty_execs_at_once_one_is_accepted(url: str) -> None:
    """However they race."""
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: exec_(url, "me", FOREVER)["status"], range(50)))
    assert Counter(answers) == {"accepted": 1, "busy": 49}


def test_output_that_is_no_text_is_shown_all_the_same(url: str) -> None:
    """Invalid bytes are replaced, quotes and markup are data."""
    exec_(url, "me", r"""printf 'a\377b\n<script>"x"</script>\n'""")
    assert finished(url, "me")[1] == ["a\N{REPLACEMENT CHARACTER}b", '<script>"x"</script>']


def test_a_poll_of_one_endless_line_is_bounded(url: str) -> None:
    """The bytes are bounded before they become JSON."""
    exec_(url, "me", "head -c 5000000 /dev/zero")
    answer, lines = finished(url, "me")
    assert answer["exit_code"] == 0
    assert sum(map(len, lines)) < 1_000_000


def test_the_log_has_no_tokens(with_gateway: Start) -> None:
    """What stands in the path may be a token: the log has the pattern of the path only."""
    server = with_gateway()
    ask(server.gateway, "POST", "/api/echo/very-secret", {"a": 1})
    assert "/api/<mode>/<uuid> 200" in eventually(lambda: server.log if "/api/" in server.log else "")
    assert "POST /api/echo/very-secret" not in server.log


def test_the_gateway_starts_on_its_own_port_again(with_gateway: Start) -> None:
    """A server that was killed comes back, gateway and all, and the command it ran is still there."""
    server = with_gateway()
    exec_(server.gateway, "me", f"echo one; {FOREVER}")
    server.restart()
    assert eventually(lambda: poll(server.gateway, "me")["output"]) == "one"
