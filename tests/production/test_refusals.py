"""What a server that checks its callers does not start with: each time exit code 78 and one line that says why."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from rexec.v1 import execution_service_pb2 as api
from rexec.v1 import execution_service_pb2_grpc as api_grpc

from rexec_server.config import ConfigError, build
from rexec_server.production import ProductionSecurity
from rexec_server.state_dir import StartRefused
from tests.production.site import RULES, Site
from tests.rpc.calls import launch, refused

MAKE_SITE = Callable[..., Site]


def refusal(site: Site, **env: str) -> str:
    """Starts a server that must not stay up. Returns the one line that it says, and it says no other."""
    site._write_config()
    done = subprocess.run(
        [sys.executable, "-m", "rexec_server", "--config", site.path("rexec.toml")],
        capture_output=True, text=True, timeout=60, env={**os.environ, **env},
    )  # fmt: skip
    assert (done.returncode, done.stderr.count("\n"), done.stdout) == (78, 1, ""), done.stderr
    return done.stderr.removeprefix("rexec-server: ").rstrip("\n")


def mistake(**settings: object) -> str:
    """What is said of settings. That the program says it and ends, `test_the_program_says_so` shows."""
    with pytest.raises(ConfigError) as caught:
        build(settings)
    return str(caught.value)


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        ("--callers c.toml --policy p.toml --listen 0.0.0.0:0", "0.0.0.0:0 is not loopback, so it needs tls_cert and"),
        ("--policy p.toml", "no callers are configured, so nobody could be let in"),
        ("--dev --callers c.toml", "--dev lets everybody in, so it does not go with callers"),
    ],
)
def test_the_program_says_so(tmp_path: Path, flags: str, why: str) -> None:
    """A mistake in the settings: exit code 78 and one line."""
    done = launch("--state-dir", str(tmp_path / "state"), *flags.split())
    assert (done.returncode, done.stderr.count("\n")) == (78, 1), done.stderr
    assert done.stderr.startswith(f"rexec-server: {why}")


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"listen": ("0.0.0.0:0",)}, "0.0.0.0:0 is not loopback, so it needs tls_cert and tls_key"),
        ({"listen": ("[::]:0",)}, "[::]:0 is not loopback, so it needs tls_cert and tls_key"),
        ({"listen": ("127.0.0.1:0", "example.org:0")}, "example.org:0 is not loopback, so it needs tls_cert"),
        ({"gateway": "0.0.0.0:0"}, "the gateway's address 0.0.0.0:0 is not loopback, so it needs"),
    ],
    ids=["any address", "any IPv6 address", "a name", "gateway"],
)
def test_t_cf_01_beyond_loopback_without_tls(settings: dict[str, object], why: str) -> None:
    """T-CF-01: what a network can reach speaks TLS, or is not there."""
    assert why in mistake(callers="callers.toml", policy="policy.toml", **settings)


@pytest.mark.parametrize("name", ["server.key", "callers.toml"])
@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda path: path.chmod(0o644), "can be read by others (mode 0644); chmod go= "),
        (lambda path: path.unlink(), "No such file or directory"),
        (lambda path: path.write_bytes(b""), ""),
    ],
    ids=["0644", "missing", "empty"],
)
def test_t_cf_02_key_files(make_site: MAKE_SITE, name: str, spoil: Callable[[Path], None], why: str) -> None:
    """T-CF-02: a key that others can read, or that is not there, is no key; the line names the file."""
    site = make_site()
    spoil(site.directory / name)
    line = refusal(site)
    assert why in line
    assert name in line


def test_t_cf_02_a_policy_that_others_can_write(make_site: MAKE_SITE) -> None:
    """T-CF-02: whoever can change the rules may run anything."""
    site = make_site()
    (site.directory / "policy.toml").chmod(0o660)
    assert "policy.toml can be written by others (mode 0660)" in refusal(site)


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o775])
def test_t_cf_03_a_socket_where_others_can_write(make_site: MAKE_SITE, mode: int) -> None:
    """T-CF-03: somebody could put a socket of their own in its place."""
    site = make_site(listen=["unix:placeholder"])
    directory = site.directory / "run"
    directory.mkdir()
    directory.chmod(mode)
    site.settings["listen"] = [f"unix:{directory}/rexec.sock"]
    assert f"others can write in {directory}; chmod go-w {directory}" in refusal(site)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_t_cf_03_a_sockets_mode(make_site: MAKE_SITE, umask: int) -> None:
    """T-CF-03: only our user and group may connect, whatever the umask; and a token is still needed."""
    site = make_site()
    path = site.directory / "run" / "rexec.sock"
    path.parent.mkdir(mode=0o700)
    site.settings["listen"] = ["127.0.0.1:0", "127.0.0.1:0", f"unix:{path}"]
    before = os.umask(umask)
    try:
        site.start()
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) in (0o600, 0o660)
    with grpc.insecure_channel(f"unix:{path}") as channel:
        stub = api_grpc.ExecutionServiceStub(channel)
        refused(lambda: stub.GetServerInfo(api.GetServerInfoRequest(), timeout=60), "UNAUTHENTICATED")
        answer = stub.GetServerInfo(api.GetServerInfoRequest(), timeout=60, metadata=site.bearer("alice"))
    assert answer.caller == "alice"


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"policy": "policy.toml"}, "no callers are configured, so nobody could be let in"),
        ({"callers": "callers.toml"}, "no policy is configured, so nothing could be run"),
    ],
)
def test_t_cf_04_without_callers_or_policy(settings: dict[str, object], why: str) -> None:
    """T-CF-04: nothing is open because somebody forgot to close it."""
    assert why in mistake(**settings)


@pytest.mark.parametrize("name", ["callers.toml", "policy.toml"])
@pytest.mark.parametrize(
    "content",
    ["", "# nothing\n", "= broken", "a = " + "[" * 20_000],
    ids=["empty", "a comment", "no TOML", "lists in lists"],
)
def test_t_cf_04_empty_callers_or_policy(make_site: MAKE_SITE, name: str, content: str) -> None:
    """T-CF-04: a file that lets nobody in, or nothing run, is a mistake, and is said to be."""
    site = make_site()
    site.write(name, content.encode())
    assert name in refusal(site)


@pytest.mark.parametrize("content", [b"a = " + b"[" * 20_000, b"a = '\xff'"], ids=["lists in lists", "no UTF-8"])
def test_t_cf_04_a_configuration_that_cannot_be_read(tmp_path: Path, content: bytes) -> None:
    """T-CF-04: whatever is in the file, one line says that it is the file."""
    path = tmp_path / "rexec.toml"
    path.touch(mode=0o600)
    path.write_bytes(content)
    done = launch("--config", str(path))
    assert done.returncode == 78, done.stderr
    assert done.stderr.startswith(f"rexec-server: {path}: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "env",
    [{"GRPC_TRACE": "all"}, {"GRPC_TRACE": "http"}, {"GRPC_VERBOSITY": "debug"}, {"GRPC_VERBOSITY": "DEBUG"}],
    ids=str,
)
def test_t_cf_05_tracing(make_site: MAKE_SITE, env: dict[str, str]) -> None:
    """T-CF-05: gRPC's traces show metadata, and so every token: GRPC_TRACE=all was seen to."""
    ((name, value),) = env.items()
    assert f"{name}={value}" in refusal(make_site(), **env)


def test_t_cf_05_introspection_is_for_callers(make_site: MAKE_SITE) -> None:
    """T-CF-05, adapted: reflection stays, and channelz when asked for; both to those who are let in alone."""
    site = make_site(channelz=True)
    site.start()
    channel = site.channel()
    servers = channel.unary_unary("/grpc.channelz.v1.Channelz/GetServers")
    refused(lambda: servers(b"", timeout=60), "UNAUTHENTICATED")
    assert servers(b"", timeout=60, metadata=site.bearer("alice"))
    reflection = channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
    list_services = b"\x3a\x00"  # ServerReflectionRequest(list_services="")
    refused(lambda: next(reflection(iter([list_services]), timeout=60)), "UNAUTHENTICATED")
    assert b"rexec.v1" in next(reflection(iter([list_services]), timeout=60, metadata=site.bearer("alice")))


def test_a_policy_whose_tests_fail(make_site: MAKE_SITE) -> None:
    """c.10: rules that do not do what their own tests say are not used."""
    wrong = RULES.replace('expect = "deny"', 'expect = "allow"', 1)
    line = refusal(make_site(rules=wrong))
    assert "policy.toml" in line
    assert "echo" in line


OTHERS_UID = 12345
LIMITED = RULES.replace('name = "echo"', 'name = "limited"\ncgroup.memory = "64M"')
AS_NOBODY = RULES.replace("[[rule]]\n", '[[rule]]\nrun_as = "nobody"\n')


@contextmanager
def security(site: Site, uid: int = OTHERS_UID) -> Iterator[ProductionSecurity]:
    """What a server of this user's is built from; nothing is started."""
    made = ProductionSecurity(build(site.settings), uid)
    try:
        yield made
    finally:
        made.close()


def test_t_cn_10_a_rule_that_this_host_cannot_keep(make_site: MAKE_SITE) -> None:
    """T-CN-10: a limit that could not be set is not left out: such a server does not start."""
    with security(make_site(rules=LIMITED)) as limited:
        for features in ((), ("run_as", "cgroup.pids", "cgroup.cpu")):
            with pytest.raises(StartRefused, match=r"cannot do: cgroup\.memory needs the memory controller"):
                limited.check_host(features)
        limited.check_host(["cgroup.memory"])


def test_t_cn_10_nobody_is_root_by_chance(make_site: MAKE_SITE) -> None:
    """T-CN-10: where the runner is root and the server is not, each rule says who its command runs as."""
    with security(make_site()) as plain:
        with pytest.raises(StartRefused, match=r"rule '\w+' has no run_as, and rexec-runner is root"):
            plain.check_host(["run_as"])
        plain.check_host([])
    with security(make_site("root's"), uid=0) as roots:
        roots.check_host(["run_as"])
    with security(make_site("named", rules=AS_NOBODY)) as each:
        each.check_host(["run_as"])
        with pytest.raises(StartRefused, match="cannot do: run_as needs a runner that is root"):
            each.check_host([])


def test_t_cn_10_a_server_asks_its_host(make_site: MAKE_SITE) -> None:
    """T-CN-10: the program itself does not start with what this machine lacks, be it a controller or a root runner."""
    site = make_site()
    site.start()
    features = site.stub().GetServerInfo(api.GetServerInfoRequest(), metadata=site.bearer("alice"), timeout=60).features
    site.end()
    if "cgroup.memory" not in features:
        rules, expected = LIMITED, "cgroup.memory needs the memory controller"
    elif "run_as" not in features:
        rules, expected = AS_NOBODY, "run_as needs a runner that is root"
    else:
        pytest.skip("this machine has all that a rule can need")
    site.write("policy.toml", rules.encode())
    assert expected in site.refused()


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda site: site.settings.update(audit=site.path("no/audit")), "no/audit: No such file or directory"),
        (lambda site: site.settings.update(audit=str(site.directory)), "Is a directory"),
        (lambda site: (site.audit.touch(), site.audit.chmod(0o666)), "can be written by others (mode 0666)"),
        (lambda site: site.audit.symlink_to("/dev/null"), "it is a symbolic link"),
        (lambda site: site.settings.update(audit=f"journald:{site.path('none')}"), "none: No such file or directory"),
    ],
    ids=["no directory", "a directory", "0666", "a link", "no journald"],
)
def test_an_audit_that_cannot_be_written(make_site: MAKE_SITE, spoil: Callable[[Site], object], why: str) -> None:
    """c.10: what cannot be written down is not done, so a server without its audit does not begin."""
    site = make_site()
    spoil(site)
    line = refusal(site)
    assert why in line
    assert "audit" in line


@pytest.mark.parametrize(
    "settings",
    [
        {"callers": "c"}, {"policy": "p"}, {"audit": "a"}, {"tls_cert": "c", "tls_key": "k"},
        {"tls_cert": "c", "tls_key": "k", "client_ca": "ca"},
        {"listener": [{"address": "127.0.0.1:0"}]}, {"listen": ("0.0.0.0:0",)}, {"gateway": "0.0.0.0:0"},
    ],
    ids="-".join,
)  # fmt: skip
def test_dev_goes_with_no_production_setting(settings: dict[str, object]) -> None:
    """A server that lets everybody in is never taken for one that does not, nor configured by mistake in its file."""
    assert mistake(dev=True, **settings).startswith("--dev lets everybody in, so it ")


def test_t_ds_07_a_second_server_on_the_same_port(make_site: MAKE_SITE) -> None:
    """T-DS-07: it is refused, and does not take half of the first one's calls."""
    first, second = make_site("first"), make_site("second")
    first.start()
    second.token_port = first.token_port
    assert f"cannot listen on 127.0.0.1:{first.token_port}" in second.refused()
    stub = first.stub()
    for _ in range(20):
        assert stub.GetServerInfo(api.GetServerInfoRequest(), timeout=60, metadata=first.bearer("alice")).caller
