"""Load and malice: what one caller or stranger does, the others do not notice; and nothing grows without end."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import psutil
import pytest
from rexec.v1 import execution_pb2 as pb
from rexec.v1 import execution_service_pb2 as api
from rexec.v1 import execution_service_pb2_grpc as api_grpc

from tests.production.site import Site
from tests.rpc.calls import outcome, refused, request
from tests.waiting import eventually

MIB = 1024 * 1024
FOLLOWERS = 20
CALLS = 600
# Seconds that a call may take beside a flood: alone it takes milliseconds, but two cores may have to serve all of it.
SOON = 1.0


@pytest.fixture(scope="module")
def modules_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server with every limit that is per caller."""
    site = Site(
        tmp_path_factory.mktemp("limits"),
        caller_followers=FOLLOWERS,
        caller_running=2,
        caller_calls=f"{CALLS}/m",
        failed_auth="1000/s",
    )
    site.start()
    yield site
    site.close()


@pytest.fixture
def _settled(site: Site) -> Iterator[None]:
    yield
    for name in ("alice", "bob"):
        for execution in _live(site, name):
            site.stub().Cancel(api.CancelRequest(exec_id=execution.exec_id), metadata=site.bearer(name), timeout=60)
        eventually(lambda name=name: not _live(site, name))


def _live(site: Site, name: str) -> list[pb.Execution]:
    states = [pb.STATE_STARTING, pb.STATE_RUNNING]
    listed = site.stub().List(api.ListRequest(states=states), metadata=site.bearer(name), timeout=60)
    return list(listed.executions)


def start(site: Site, name: str, *arguments: str, **fields: object) -> pb.Execution:
    asked = request(*arguments, **fields)
    return site.stub().Exec(asked, metadata=site.bearer(name), timeout=60).execution


def info(stub: api_grpc.ExecutionServiceStub, metadata: object, **options: object) -> api.GetServerInfoResponse:
    return stub.GetServerInfo(api.GetServerInfoRequest(), metadata=metadata, timeout=60, **options)


def latencies(site: Site, name: str, enough: Callable[[list[float]], object]) -> list[float]:
    """Seconds that a caller's calls take, one after the other, until it is enough."""
    stub, metadata, taken = site.stub(), site.bearer(name), []
    while not enough(taken):
        before = time.monotonic()
        assert info(stub, metadata).caller == name
        taken.append(time.monotonic() - before)
    return taken


def memory(site: Site) -> int:
    return int(psutil.Process(site.pid).memory_info().rss)


def test_t_ds_01_a_large_message_from_nobody(site: Site) -> None:
    """T-DS-01, adapted: 4 MiB is what any gRPC client may send by default, and standard input needs it. More is
    refused before it is read, and before anybody asks who it is; what is not more, from nobody, is not looked into."""
    with site.channel() as channel:
        exec_ = channel.unary_unary("/rexec.v1.ExecutionService/Exec")
        answer = refused(lambda: exec_(b"\0" * (4 * MIB + 1), timeout=60), "RESOURCE_EXHAUSTED")
        assert "larger than max" in answer.message
        refused(lambda: exec_(b"\0" * (4 * MIB), timeout=60), "UNAUTHENTICATED")


@pytest.mark.parametrize("size", [16 * 1024, 24 * 1024, 64 * 1024])
def test_t_ds_02_large_metadata(site: Site, size: int) -> None:
    """T-DS-02: more than 16 KB of metadata is refused, each time, by the server, and the connection goes on."""
    stub = site.stub()
    for _ in range(5):
        answer = refused(lambda: info(stub, [*site.bearer("alice"), ("x-pad", "a" * size)]), "RESOURCE_EXHAUSTED")
        assert "received metadata size exceeds" in answer.message
    assert info(stub, [*site.bearer("alice"), ("x-pad", "a" * 12 * 1024)]).caller == "alice"


@pytest.mark.usefixtures("_settled")
def test_t_ds_03_followers_starve_nobody(site: Site) -> None:
    """T-DS-03: as many as may follow do, and calls are as fast as ever; one more is told to come later."""
    start(site, "alice", "sleep", "600", exec_id="followed")
    before = statistics.median(latencies(site, "bob", lambda taken: len(taken) >= 30))

    def follow() -> grpc.Future:
        stub = site.stub()
        return stub.Follow(api.FollowRequest(exec_id="followed"), metadata=site.bearer("alice"), timeout=60)

    streams = [follow() for _ in range(FOLLOWERS)]
    for stream in streams:
        assert next(stream).HasField("snapshot")
    taken = sorted(latencies(site, "bob", lambda taken: len(taken) >= 100))
    assert taken[98] < max(SOON, 10 * before)
    answer = refused(lambda: next(follow()), "RESOURCE_EXHAUSTED")
    assert {"QuotaFailure", "RetryInfo"} <= answer.details.keys()
    own = start(site, "bob", "sleep", "600", exec_id="bobs")
    bobs = site.stub().Follow(api.FollowRequest(exec_id=own.exec_id), metadata=site.bearer("bob"), timeout=60)
    assert next(bobs).HasField("snapshot")
    for stream in (*streams, bobs):
        stream.cancel()


def test_t_ds_05_a_flood_of_bad_tokens(site: Site) -> None:
    """T-DS-05: hundreds of forged tokens, and a caller is served as before; the memory does not grow with them."""
    usual = statistics.median(latencies(site, "olga", lambda taken: len(taken) >= 20))
    tokens = [f"Bearer {site.token('alice', key=bytes([number]) * 32)}" for number in range(50)]
    stub = site.stub()

    def flood(metadata: list[list[tuple[str, str]]]) -> Counter[grpc.StatusCode]:
        return Counter(outcome(lambda one=one: info(stub, one)) for one in metadata)

    warm = memory(site)
    with ThreadPoolExecutor(2) as pool:
        floods = [pool.submit(flood, [[("authorization", token)] for token in tokens * 4]) for _ in range(2)]
        taken = latencies(site, "olga", lambda taken: len(taken) >= 200 or (taken and all(f.done() for f in floods)))
        codes = sum((each.result() for each in floods), Counter())
    assert statistics.median(taken) < max(SOON / 4, 10 * usual)
    assert codes.keys() <= {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert codes.total() == 400
    assert memory(site) - warm < 32 * MIB


@pytest.mark.usefixtures("_settled")
def test_t_ds_06_streams_opened_and_cancelled(site: Site) -> None:
    """T-DS-06: a thousand streams that are opened and reset at once, and the server serves, and keeps nothing."""
    start(site, "bob", "sleep", "600", exec_id="reset")
    server = psutil.Process(site.pid)
    before, warm = server.num_fds(), memory(site)
    # The first of them are let in; from then on he calls too often.
    stub, metadata = site.stub(), site.bearer("otto")
    for _ in range(1000):
        stub.Follow(api.FollowRequest(exec_id="reset", caller="bob"), metadata=metadata, timeout=60).cancel()
    assert info(site.stub(), site.bearer("bob")).caller == "bob"
    eventually(lambda: server.num_fds() <= before + 10)
    assert memory(site) - warm < 64 * MIB
    found = site.stub().Poll(api.PollRequest(exec_id="reset"), metadata=site.bearer("bob"), timeout=60)
    assert found.execution.followers == 0


@pytest.mark.usefixtures("_settled")
def test_a_caller_runs_so_much_at_once(site: Site) -> None:
    """Who has started as much as may run is told to come later; another caller is not affected."""
    for _ in range(2):
        start(site, "alice", "sleep", "600")
    answer = refused(lambda: start(site, "alice", "sleep", "600"), "RESOURCE_EXHAUSTED")
    assert {"QuotaFailure", "RetryInfo"} <= answer.details.keys()
    assert start(site, "bob", "sleep", "600").state == pb.STATE_RUNNING


def test_calls_of_one_caller_are_limited(site: Site) -> None:
    """Who calls too often is refused with when to come again, by whichever call; nobody else notices."""
    stub, metadata = site.stub(), site.bearer("olga")
    # All at once: one after the other they may not exceed what is allowed, on a busy machine.
    asked = [stub.GetServerInfo.future(api.GetServerInfoRequest(), metadata=metadata) for _ in range(2 * CALLS)]
    assert {call.code() for call in asked} == {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
    answer = refused(lambda: [info(stub, metadata) for _ in range(CALLS)], "RESOURCE_EXHAUSTED")
    assert 0 < answer.details["RetryInfo"].retry_delay.ToTimedelta().total_seconds() < 1
    assert info(stub, site.bearer("bob")).caller == "bob"


def test_what_all_callers_share(make_site: Callable[..., Site]) -> None:
    """max_followers and all_starts count everybody together: what one has used up, another one waits for."""
    site = make_site(max_followers=1, all_starts="2/h")
    site.start()
    for name in ("alice", "bob"):
        start(site, name, "sleep", "600", exec_id=f"{name}s")
    answer = refused(lambda: start(site, "alice", "sleep", "600"), "RESOURCE_EXHAUSTED", "RATE_LIMITED")
    assert answer.details["QuotaFailure"].violations[0].subject == "all callers"
    assert answer.details["RetryInfo"].retry_delay.seconds > 1000

    def follow(name: str) -> grpc.Future:
        return site.stub().Follow(api.FollowRequest(exec_id=f"{name}s"), metadata=site.bearer(name), timeout=60)

    first = follow("alice")
    assert next(first).HasField("snapshot")
    answer = refused(lambda: next(follow("bob")), "RESOURCE_EXHAUSTED", "EXHAUSTED")
    assert answer.details["QuotaFailure"].violations[0].subject == "followers"
    first.cancel()
    eventually(lambda: outcome(lambda: next(follow("bob"))) == grpc.StatusCode.OK)
