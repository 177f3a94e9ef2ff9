"""A real production server lets in whom its callers.toml names, on each listener, and nobody else."""

from __future__ import annotations

import ssl
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor
from grpc_channelz.v1 import channelz_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from rexec.v1 import execution_pb2 as pb
from rexec.v1 import execution_service_pb2 as api
from rexec.v1 import execution_service_pb2_grpc as api_grpc

from deploy.authority import Authority, Pair
from rexec_server.rpc.rights import RIGHTS, Right
from tests.production.site import DOMAIN, Site
from tests.rpc.calls import duration, refused
from tests.waiting import eventually

Metadata = list[tuple[str, str]]
FILES: list[Any] = [api.DESCRIPTOR, health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR, channelz_pb2.DESCRIPTOR]
UNKNOWN = ["/x.Y/Z", "/rexec.v1.ExecutionService/Nothing", "//rexec.v1.ExecutionService/Exec", "/", "/Exec"]
NOT_SERVED = "/grpc.health.v1.Health/List"  # see rexec_server/rpc/rights.py
SERVICE = "/rexec.v1.ExecutionService"
OLD_ENOUGH_SECONDS = 120


def methods() -> dict[str, descriptor.MethodDescriptor]:
    """Every method of every service that a server can have."""
    services = [service for file in FILES for service in file.services_by_name.values()]
    return {f"/{service.full_name}/{method.name}": method for service in services for method in service.methods}


@pytest.fixture(scope="module")
def modules_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """With all services, and patience with the many calls here that are not let in."""
    site = Site(tmp_path_factory.mktemp("site"), channelz=True, failed_auth="100000/s")
    site.start()
    yield site
    site.close()


@pytest.fixture(scope="module")
def tokens(modules_site: Site) -> grpc.Channel:
    """To the listener for tokens."""
    return modules_site.channel()


@pytest.fixture(scope="module")
def certified(modules_site: Site) -> grpc.Channel:
    """To the listener for certificates, as alice."""
    return modules_site.channel(modules_site.certificates["alice"])


def call(channel: grpc.Channel, method: str, metadata: Metadata | None = None, request: bytes = b"") -> bytes:
    """The first answer of any method; its messages are bytes here."""
    stream = channel.stream_stream(method)(iter([request]), metadata=metadata, timeout=60)
    answer: bytes = next(stream)
    stream.cancel()
    return answer


def server_info(channel: grpc.Channel, metadata: Metadata | None = None) -> str:
    """Who the server says that we are."""
    return api.GetServerInfoResponse.FromString(call(channel, f"{SERVICE}/GetServerInfo", metadata)).caller


def test_t_au_01_each_method_has_a_declared_right() -> None:
    """An RPC that is added without saying what it needs of its caller fails here, and is nobody's until then."""
    assert set(methods()) - set(RIGHTS) == {NOT_SERVED}
    assert set(RIGHTS) <= set(methods())
    open_to_all = {name for name, right in RIGHTS.items() if right is Right.OPEN}
    assert {name.rpartition("/")[0] for name in open_to_all} == {"/grpc.health.v1.Health"}


def test_t_au_01_the_server_serves_those_services_and_no_other(site: Site, tokens: grpc.Channel) -> None:
    """What was enumerated above is what a server with everything switched on has."""
    ask = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
    name = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    answer = reflection_pb2.ServerReflectionResponse.FromString(call(tokens, name, site.bearer("alice"), ask))
    served = {service.name for service in answer.list_services_response.service}
    assert served == {name.split("/")[1] for name in RIGHTS}


@pytest.mark.parametrize("method", [*methods(), *UNKNOWN])
def test_t_au_01_nothing_is_open_without_a_credential(tokens: grpc.Channel, method: str) -> None:
    """Each method of each service says UNAUTHENTICATED to who shows nothing, also one that there is not."""
    if RIGHTS.get(method) is Right.OPEN:
        assert call(tokens, method)
    elif method.startswith("/") and method.count("/") == 2:
        refused(lambda: call(tokens, method), "UNAUTHENTICATED", "UNAUTHENTICATED")
    else:
        with pytest.raises(grpc.RpcError) as caught:
            call(tokens, method)
        assert caught.value.code() in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNIMPLEMENTED)


def test_t_lg_01_nonsense_from_anybody_fills_no_log(site: Site, tokens: grpc.Channel) -> None:
    """What needs no credential answers nonsense with a status, and not with a traceback in the log."""
    before = len(site.log)
    for method in (name for name, right in RIGHTS.items() if right is Right.OPEN):
        refused(lambda m=method: call(tokens, m, request=b"\xff"), "INVALID_ARGUMENT")
    refused(lambda: call(tokens, NOT_SERVED, request=b"\xff"), "UNAUTHENTICATED")
    name = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    refused(lambda: call(tokens, name, site.bearer("alice"), b"\xff"), "INVALID_ARGUMENT")
    assert "Traceback" not in site.log[before:]


def test_t_az_02_what_is_not_in_the_table_is_not_served(site: Site, tokens: grpc.Channel) -> None:
    """With a credential too, a name that is not exactly a method's leads nowhere."""
    for method in UNKNOWN:
        refused(lambda method=method: call(tokens, method, site.bearer("alice")), "UNIMPLEMENTED")


def test_t_au_02_what_is_no_token_gets_nowhere(site: Site, tokens: grpc.Channel) -> None:
    """Wrong scheme, nothing, too much, no ASCII, twice: refused, and no handler began."""
    good = site.token("alice")
    wrong: list[Metadata] = [
        [("authorization", value)]
        for value in ("", "Bearer", "Bearer ", f"Basic {good}", good, f"Bearer  {good}", f"Bearer {'A' * 10_240}")
    ]
    wrong.append([("authorization", f"Bearer {good}"), ("authorization", f"Bearer {good}")])
    request = api.ExecRequest(arguments=["echo", "never"], exec_id="never").SerializeToString()
    for metadata in wrong:
        refused(lambda m=metadata: call(tokens, f"{SERVICE}/Exec", m, request), "UNAUTHENTICATED")
    assert server_info(tokens, [("authorization", f"bearer {good}")]) == "alice"
    poll = api.PollRequest(exec_id="never").SerializeToString()
    refused(lambda: call(tokens, f"{SERVICE}/Poll", site.bearer("alice"), poll), "NOT_FOUND")


def test_t_au_02_an_error_says_nothing_of_the_reason(site: Site, tokens: grpc.Channel) -> None:
    """Another server's token, another's key and noise are answered alike; one that is only late is told so."""
    bad = [{"aud": "elsewhere"}, {"sub": "bob"}, {"scope": "write"}, {"jti": ""}, {"key": site.keys["bob"]}]
    answers = {
        refused(lambda c=claims: server_info(tokens, site.bearer("alice", **c)), "UNAUTHENTICATED").message
        for claims in bad
    }
    assert answers == {"the token is not valid"}
    now = int(time.time())
    late = site.bearer("alice", iat=now - OLD_ENOUGH_SECONDS - 60, exp=now - OLD_ENOUGH_SECONDS)
    assert "has expired" in refused(lambda: server_info(tokens, late), "UNAUTHENTICATED").message
    assert "aud is not" in site.log


def test_t_au_03_two_credentials_must_be_one_callers(site: Site, certified: grpc.Channel) -> None:
    """alice's certificate with bob's token is nobody; with her own token it is alice."""
    assert server_info(certified) == "alice"
    assert server_info(certified, site.bearer("alice")) == "alice"
    refused(lambda: server_info(certified, site.bearer("bob")), "UNAUTHENTICATED")
    refused(lambda: server_info(certified, [("authorization", "Bearer x")]), "UNAUTHENTICATED")


@pytest.mark.parametrize("name", ["x-forwarded-user", "proxied-identity", "x-caller", "x-goog-authenticated-user-id"])
def test_t_au_04_nobody_says_by_metadata_who_calls(
    site: Site, tokens: grpc.Channel, certified: grpc.Channel, name: str
) -> None:
    """Metadata that names a caller refuses the call, on every listener and with every credential."""
    claim = (name, "root")
    refused(lambda: server_info(tokens, [claim]), "UNAUTHENTICATED")
    refused(lambda: server_info(tokens, [*site.bearer("alice"), claim]), "UNAUTHENTICATED")
    refused(lambda: server_info(certified, [claim]), "UNAUTHENTICATED")


def outcome(channel: grpc.Channel) -> grpc.StatusCode:
    """How a call over a channel of its own ends."""
    try:
        server_info(channel)
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    finally:
        channel.close()
    return grpc.StatusCode.OK


def test_t_au_10_who_has_no_valid_certificate_does_not_get_past_the_handshake(site: Site) -> None:
    """Expired, another authority's with the same name, none at all, and no TLS: the call never reaches us."""
    expired = site.authority.for_caller(f"{DOMAIN}/alice", days=-1)
    foreign = Authority().for_caller(f"{DOMAIN}/alice")
    assert outcome(site.channel(expired)) == grpc.StatusCode.UNAVAILABLE
    assert outcome(site.channel(foreign)) == grpc.StatusCode.UNAVAILABLE
    target, options = f"127.0.0.1:{site.certificate_port}", [("grpc.enable_http_proxy", 0)]
    without = grpc.ssl_channel_credentials(site.authority.certificate)
    assert outcome(grpc.secure_channel(target, without, options)) == grpc.StatusCode.UNAVAILABLE
    assert outcome(grpc.insecure_channel(target, options)) == grpc.StatusCode.UNAVAILABLE
    assert outcome(grpc.insecure_channel(f"127.0.0.1:{site.token_port}", options)) == grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    ("uri", "common_name"),
    [(f"{DOMAIN}/mallory", "caller"), (f"{DOMAIN}/ALICE", "alice"), ("", "alice"), ("", f"{DOMAIN}/alice")],
)
def test_t_au_10_a_certificate_of_nobody_we_know_is_refused(site: Site, uri: str, common_name: str) -> None:
    """A name that is not in callers.toml is nobody's; neither the common name nor a token helps."""
    channel = site.channel(site.authority.for_caller(uri, common_name=common_name))
    for metadata in (None, site.bearer("alice")):
        refused(lambda m=metadata: server_info(channel, m), "PERMISSION_DENIED", "NOT_ALLOWED")
    channel.close()


def test_t_au_10_a_certificate_is_no_credential_on_the_other_listener(site: Site) -> None:
    """The listener for tokens asks for no certificate: who offers one there is still nobody."""
    pair = site.certificates["alice"]
    credentials = grpc.ssl_channel_credentials(site.authority.certificate, pair.key, pair.certificate)
    target = f"127.0.0.1:{site.token_port}"
    assert outcome(grpc.secure_channel(target, credentials, [("grpc.enable_http_proxy", 0)])) == (
        grpc.StatusCode.UNAUTHENTICATED
    )


def test_t_au_11_a_disabled_caller_is_out_at_once(make_site: Callable[..., Site]) -> None:
    """After a reload each new call of the caller is refused, and what is open ends within a heartbeat; others go on."""
    site = make_site()
    site.start()
    stub, certified = site.stub(), site.certified("alice")
    for name in ("alice", "bob"):
        stub.Exec(api.ExecRequest(arguments=["sleep", "60"], exec_id="nap"), metadata=site.bearer(name), timeout=60)
    request = api.FollowRequest(exec_id="nap", heartbeat_interval=duration(1))
    follows = {
        "token": stub.Follow(request, metadata=site.bearer("alice"), timeout=60),
        "certificate": certified.Follow(request, timeout=60),
        "bob": stub.Follow(request, metadata=site.bearer("bob"), timeout=60),
    }
    for follow in follows.values():
        assert next(follow).snapshot.state in (pb.STATE_STARTING, pb.STATE_RUNNING)
    site.disabled.add("alice")
    site.write_callers()
    site.reload()
    poll = api.PollRequest(exec_id="nap")
    refused(lambda: stub.Poll(poll, metadata=site.bearer("alice"), timeout=60), "UNAUTHENTICATED")
    refused(lambda: certified.Poll(poll, timeout=60), "PERMISSION_DENIED")
    began = time.monotonic()
    for name in ("token", "certificate"):
        refused(lambda name=name: list(follows[name]), "UNAUTHENTICATED")
    assert time.monotonic() - began < 15
    assert any(message.HasField("heartbeat") for message in follows["bob"])
    follows["bob"].cancel()


def certificate_of(port: int) -> bytes:
    """The server's certificate, as a new connection sees it."""
    return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", port), timeout=60))


def install(site: Site, pair: Pair) -> None:
    """Puts a renewed certificate in the place of the old one, as tools for that do: each file at once."""
    for name, data in (("server.pem", pair.certificate), ("server.key", pair.key)):
        Path(site.write(f"{name}.new", data)).rename(site.path(name))


def test_certificates_are_renewed_without_a_restart(make_site: Callable[..., Site]) -> None:
    """New connections get the renewed certificate, open ones go on, and a bad renewal changes nothing."""
    site = make_site()
    site.start()
    open_channel = site.channel()
    assert server_info(open_channel, site.bearer("alice")) == "alice"
    renewed = site.authority.for_server("localhost", "127.0.0.1")
    install(site, renewed)
    expected = ssl.PEM_cert_to_DER_cert(renewed.certificate.decode())
    assert certificate_of(site.token_port) == expected
    certified = site.channel(site.certificates["alice"])
    assert server_info(certified) == "alice"
    assert server_info(open_channel, site.bearer("alice")) == "alice"
    site.write("server.pem", Authority().for_server("localhost").certificate)
    assert certificate_of(site.token_port) == expected
    eventually(lambda: "certificate NOT reloaded, the old one stays in use" in site.log)
    assert "KEY_VALUES_MISMATCH" in site.log


def test_the_authority_of_callers_is_renewed_without_a_restart(make_site: Callable[..., Site]) -> None:
    """Callers of a new authority are let in from the next connection on, those of the old one no more."""
    site = make_site()
    site.start()
    before = site.certificates["alice"]
    assert outcome(site.channel(before)) == grpc.StatusCode.OK
    successor = Authority("successor")
    Path(site.write("ca.pem.new", successor.certificate)).rename(site.path("ca.pem"))
    assert outcome(site.channel(successor.for_caller(f"{DOMAIN}/alice"))) == grpc.StatusCode.OK
    assert outcome(site.channel(before)) == grpc.StatusCode.UNAVAILABLE


def test_executions_of_a_certificate_and_of_a_token_are_one_callers(
    site: Site, tokens: grpc.Channel, certified: grpc.Channel
) -> None:
    """A caller is a name: what was started with one credential is found with the other, and by nobody else."""
    exec_id = uuid.uuid4().hex
    stub = api_grpc.ExecutionServiceStub(certified)
    stub.Exec(api.ExecRequest(arguments=["echo", "hi"], exec_id=exec_id, wait=duration(10)), timeout=60)
    poll = api.PollRequest(exec_id=exec_id).SerializeToString()
    found = api.PollResponse.FromString(call(tokens, f"{SERVICE}/Poll", site.bearer("alice"), poll))
    assert found.execution.state == pb.STATE_SUCCEEDED
    refused(lambda: call(tokens, f"{SERVICE}/Poll", site.bearer("bob"), poll), "NOT_FOUND")
