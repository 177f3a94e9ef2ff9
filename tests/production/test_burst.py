"""An honest burst: more calls at once than one connection may have open. They wait, and none is lost."""

from __future__ import annotations

from collections import Counter

import grpc
import pytest
from rexec.v1 import execution_service_pb2 as api
from rexec.v1 import execution_service_pb2_grpc as api_grpc

from tests.production.site import Site

CALLS = 2_000


@pytest.mark.parametrize("certificate", [False, True], ids=["token", "certificate"])
def test_s11_two_thousand_calls_at_once_on_one_connection(site: Site, certificate: bool) -> None:
    """S11: a new client begins them before it knows how many may be open; all are answered, on either listener."""
    codes: Counter[grpc.StatusCode] = Counter()
    for _ in range(2):
        with site.channel(site.certificates["alice"] if certificate else None) as channel:
            stub = api_grpc.ExecutionServiceStub(channel)
            metadata = None if certificate else site.bearer("alice")
            asked = [
                stub.GetServerInfo.future(api.GetServerInfoRequest(), metadata=metadata, timeout=60)
                for _ in range(CALLS)
            ]
            codes.update(call.code() for call in asked)
    assert codes == {grpc.StatusCode.OK: 2 * CALLS}
