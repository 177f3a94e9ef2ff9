"""The server as a program: what it serves, how it stops, and what it refuses to start with."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from rexec.v1 import execution_pb2 as pb
from rexec.v1 import execution_service_pb2 as api

from tests.rpc.calls import START_SERVER, alive, bearer, ended, follow, joined, launch, poll, refused, run, shown, start
from tests.servers import Server
from tests.waiting import eventually

SERVICE = "rexec.v1.ExecutionService"
EX_CONFIG = 78


def channel(server: Server) -> grpc.Channel:
    return grpc.insecure_channel(server.target, options=[("grpc.enable_http_proxy", 0)])


def end_runner(state_dir: Path) -> None:
    """Ends the runner that a server started which then refused to stay."""
    pid = state_dir / "runner.pid"
    if pid.exists() and alive(int(pid.read_text())):
        psutil.Process(int(pid.read_text())).kill()


def test_reflection_knows_what_is_served(server: Server) -> None:
    """Our service, health and reflection itself, and no channelz unless asked."""
    with channel(server) as open_:
        stub = reflection_pb2_grpc.ServerReflectionStub(open_)
        ask = reflection_pb2.ServerReflectionRequest(list_services="")
        (answer,) = stub.ServerReflectionInfo(iter([ask]))
    assert {service.name for service in answer.list_services_response.service} == {
        SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection",
    }  # fmt: skip


def test_health_per_service(server: Server) -> None:
    """The server and its service are SERVING, also to callers without credentials; others are unknown."""
    with channel(server) as open_:
        stub = health_pb2_grpc.HealthStub(open_)
        for name in ("", SERVICE):
            assert stub.Check(health_pb2.HealthCheckRequest(service=name)).status == 1
        refused(lambda: stub.Check(health_pb2.HealthCheckRequest(service="none")), "NOT_FOUND")


def test_channelz_only_when_asked_for(start_server: START_SERVER) -> None:
    """Without --channelz it is not there; with it, it counts calls."""
    for flags, name in (((), "without"), (("--channelz",), "with")):
        server = start_server(*flags, name=name)
        with channel(server) as open_:
            stub = channelz_pb2_grpc.ChannelzStub(open_)
            request = channelz_pb2.GetServersRequest()
            if flags:
                assert stub.GetServers(request).server[0].data.calls_started >= 1
            else:
                refused(lambda stub=stub, request=request: stub.GetServers(request), "UNIMPLEMENTED")


def test_info(start_server: START_SERVER) -> None:
    """GetServerInfo tells the limits as they were set, and a new instance after each start."""
    server = start_server("--max-running", "7", "--tail-lines", "9", "--max-timeout", "1h", "--output-bytes", "5M")
    info = server.stub.GetServerInfo(api.GetServerInfoRequest(), metadata=bearer("alice"))
    assert (info.max_running, info.tail_lines, info.default_output_bytes) == (7, 9, 5 * 1024 * 1024)
    assert (info.max_timeout.seconds, info.default_retention.seconds) == (3600, 86400)
    assert (info.caller, bool(info.version)) == ("alice", True)
    assert server.stub.GetServerInfo(api.GetServerInfoRequest()).instance_id == info.instance_id
    server.restart()
    again = eventually(lambda: server.stub.GetServerInfo(api.GetServerInfoRequest()))
    assert again.instance_id != info.instance_id


@pytest.mark.parametrize("value", ["alice", "Basic x", "Bearer ", "Bearer a b"])
def test_what_is_no_name_is_nobody(server: Server, value: str) -> None:
    """A credential that cannot be read is refused, and not taken for the operator."""
    metadata = (("authorization", value),)
    refused(lambda: server.stub.List(api.ListRequest(), metadata=metadata), "UNAUTHENTICATED")
    refused(lambda: list(server.stub.Follow(api.FollowRequest(exec_id="x"), metadata=metadata)), "UNAUTHENTICATED")
    twice = (*bearer("a"), *bearer("b"))
    refused(lambda: server.stub.List(api.ListRequest(), metadata=twice), "UNAUTHENTICATED")


def test_drain(server: Server, tmp_path: Path) -> None:
    """SIGTERM ends followers unfinished, refuses the new, and lets commands go on."""
    os.mkfifo(gate := tmp_path / "gate")
    execution = start(server, "sh", "-c", f"echo on; cat {gate}; echo off", exec_id="on")
    shown(server, "on", b"on")
    stream = follow(server, "on")
    messages = [next(stream), next(stream)]
    assert server.terminate() == 0
    with pytest.raises(grpc.RpcError) as caught:
        messages += list(stream)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert not any(message.HasField("end") for message in messages)
    assert alive(execution.pid)
    server.start()
    gate.write_text("")
    rest = list(eventually(lambda: follow(server, "on", offset=messages[-1].next_offset)))
    assert joined(rest[-2].output.chunks) == b"off\n"
    assert rest[-1].end.exit_code == 0


def test_drain_does_not_wait_for_those_who_do_not_read(server: Server) -> None:
    """Followers that never read hold up the stop no longer than its grace, waiting polls not at all."""
    start(server, "sh", "-c", "head -c 50000000 /dev/zero; sleep 60", exec_id="big")
    streams = [follow(server, "big", timeout=None) for _ in range(5)]
    for stream in streams:
        next(stream)
    start(server, "sleep", "60", exec_id="silent")
    request = api.PollRequest(exec_id="silent", offset=0)
    request.wait.seconds = 50
    waiting = server.stub.Poll.future(request)
    eventually(lambda: poll(server, "big").execution.followers == 5)
    assert server.terminate() == 0  # within its 20 s, or it raises
    assert waiting.done() or waiting.exception() is not None
    for stream in streams:
        stream.cancel()


def test_end_on_stop(start_server: START_SERVER) -> None:
    """With --end-on-stop followers see the end, by the server's doing."""
    server = start_server("--end-on-stop")
    start(server, "sleep", "60", exec_id="on")
    stream = follow(server, "on")
    next(stream)
    assert server.terminate() == 0
    end = list(stream)[-1].end
    assert (end.reason, end.signal) == (pb.REASON_SERVER_SHUTDOWN, signal.SIGTERM)
    server.start()
    assert ended(server, "on").reason == pb.REASON_SERVER_SHUTDOWN


def test_one_server_per_state_directory(server: Server) -> None:
    """A second server on the same state directory says who is there, and does no harm."""
    result = launch("--dev", "--listen", "127.0.0.1:0", "--state-dir", str(server.state_dir))
    assert result.returncode == EX_CONFIG
    assert str(server.pid) in result.stderr
    assert result.stderr.startswith("rexec-server: another rexec-server")
    assert run(server, "true").execution.exit_code == 0


def test_one_server_per_port(server: Server, tmp_path: Path) -> None:
    """A port or a socket that is taken is named, not shared."""
    other = tmp_path / "other"
    result = launch("--dev", "--listen", server.target, "--state-dir", str(other))
    end_runner(other)
    assert result.returncode == EX_CONFIG
    assert f"cannot listen on {server.target}" in result.stderr
    assert "Traceback" not in result.stderr


def test_one_server_per_socket(start_server: START_SERVER, tmp_path: Path) -> None:
    """A unix socket works, is not taken over while somebody answers there, and is taken up after a crash."""
    path = tmp_path / "s.sock"
    server = start_server("--listen", f"unix:{path}")
    assert run(server, "true").execution.exit_code == 0
    result = launch("--dev", "--listen", f"unix:{path}", "--state-dir", str(tmp_path / "other"))
    end_runner(tmp_path / "other")
    assert result.returncode == EX_CONFIG
    assert "another server answers" in result.stderr
    server.restart()
    assert eventually(lambda: run(server, "true")).execution.exit_code == 0


def test_several_addresses(start_server: START_SERVER, tmp_path: Path) -> None:
    """--listen may be repeated: each serves."""
    path = tmp_path / "s.sock"
    server = start_server("--listen", "127.0.0.1:0", "--listen", f"unix:{path}")
    run(server, "true", exec_id="x")
    with grpc.insecure_channel(f"unix:{path}") as other:
        call = other.unary_unary("/rexec.v1.ExecutionService/Poll")
        assert api.PollResponse.FromString(call(api.PollRequest(exec_id="x").SerializeToString())).eof


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ((), "--dev"),
        (("--dev", "--listen", "0.0.0.0:0"), "0.0.0.0:0"),
        (("--dev", "--listen", "[::]:0"), "[::]:0"),
        (("--dev", "--listen", "localhost"), "--listen"),
        (("--dev", "--listen", "127.0.0.1:99999"), "--listen"),
        (("--dev", "--max-running", "0"), "--max-running"),
        (("--dev", "--max-running", "many"), "--max-running"),
        (("--dev", "--retention", "soon"), "--retention"),
        (("--dev", "--output-bytes", "0"), "--output-bytes"),
        (("--dev", "--tail-lines", "-1"), "--tail-lines"),
        (("--dev", "--tail-lines", "5000000000"), "--tail-lines"),
        (("--dev", "--config", "/no/such.toml"), "/no/such.toml"),
        (("--dev", "--state-dir", "/proc/none"), "/proc/none"),
    ],
)
def test_refuses_and_says_why(tmp_path: Path, flags: tuple[str, ...], said: str) -> None:
    """What cannot be is refused in one line that names it."""
    state = () if "--state-dir" in flags else ("--state-dir", str(tmp_path / "s"))
    result = launch(*state, *flags)
    assert result.returncode == EX_CONFIG, result
    assert said in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_an_unknown_key_in_the_file_is_named(tmp_path: Path) -> None:
    """A misspelt setting is an error that names it and its file."""
    (tmp_path / "c.toml").write_text("max-runing = 3\n")
    result = launch("--dev", "--config", str(tmp_path / "c.toml"))
    assert result.returncode == EX_CONFIG
    assert "max_runing" in result.stderr or "max-runing" in result.stderr
    assert "c.toml" in result.stderr


def test_flags_over_environment_over_file(start_server: START_SERVER, tmp_path: Path) -> None:
    """The nearer word counts: flag, then REXEC_ variable, then file."""
    file = tmp_path / "c.toml"
    file.write_text('max-running = 3\ntail-lines = 4\noutput-bytes = "2M"\n')
    server = start_server(
        "--config", str(file), "--max-running", "5", env={"REXEC_TAIL_LINES": "6", "REXEC_MAX_RUNNING": "9"}
    )
    info = server.stub.GetServerInfo(api.GetServerInfoRequest())
    assert (info.max_running, info.tail_lines, info.default_output_bytes) == (5, 6, 2 * 1024 * 1024)


def test_max_timeout_is_granted_and_is_the_default(start_server: START_SERVER) -> None:
    """A longer timeout is refused; none is the longest."""
    server = start_server("--max-timeout", "500ms")
    assert refused(lambda: start(server, "true", timeout=1), "INVALID_ARGUMENT").fields == ["timeout"]
    assert run(server, "sleep", "60").execution.reason == pb.REASON_TIMED_OUT


def test_the_port_is_free_after_a_stop(server: Server) -> None:
    """A stopped server leaves its port, and the next one takes it at once."""
    server.terminate()
    with socket.create_server(("127.0.0.1", int(server.target.rpartition(":")[2]))):
        pass
    server.start()
    assert eventually(lambda: run(server, "true")).execution.exit_code == 0


def test_a_token_is_no_name(server: Server) -> None:
    """Who sends a token to a server in --dev is told so; it does not become a caller's name that lists show."""
    token = "eyJhbGciOiJkaXIifQ..48V1_ALb6US04U3b.5eym8TW_c8SuK0ltJ3rpYIzOeDQz7TALvtu6UG9oMo4.XFBoMYUZodetZdvTiFvSkQ"
    metadata = [("authorization", f"Bearer {token}")]
    error = refused(lambda: server.stub.GetServerInfo(api.GetServerInfoRequest(), metadata=metadata), "UNAUTHENTICATED")
    assert token not in error.message


def test_watchers_without_a_credential_are_few_for_each_address(start_server: Any, tmp_path: Path) -> None:
    """One address cannot hold so many open streams that others are refused theirs."""
    socket_path = f"unix:{tmp_path}/s.sock"
    server = start_server("--listen", "127.0.0.1:0", "--listen", socket_path)
    request = health_pb2.HealthCheckRequest()
    with (
        grpc.insecure_channel(server.target, options=[("grpc.enable_http_proxy", 0)]) as tcp,
        grpc.insecure_channel(socket_path) as unix,
    ):
        streams = [health_pb2_grpc.HealthStub(tcp).Watch(request) for _ in range(32)]
        assert {next(stream).status for stream in streams} == {health_pb2.HealthCheckResponse.SERVING}
        with pytest.raises(grpc.RpcError) as refusal:
            next(health_pb2_grpc.HealthStub(tcp).Watch(request))
        assert refusal.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        other = health_pb2_grpc.HealthStub(unix).Watch(request)
        assert next(other).status == health_pb2.HealthCheckResponse.SERVING
        for stream in [*streams, other]:
            stream.cancel()


def test_dev_warns(server: Server) -> None:
    """A server that lets everybody in says so, and as whom commands run."""
    user = os.environ.get("USER", f"uid {os.getuid()}")
    assert f"WARNING rexec_server.app: --dev: everybody on this machine may run commands as {user}\n" in server.log
