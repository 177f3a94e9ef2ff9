"""A server of which every answer is laid down: for what a real one shows seldom, such as a full disk."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from rexec.v1 import execution_pb2 as pb
from rexec.v1 import execution_service_pb2 as api
from rexec.v1 import execution_service_pb2_grpc as api_grpc

from rexec_client.executions import is_ended


class Staged(api_grpc.ExecutionServiceServicer):
    """Has one execution, which the test sets, and no output of it."""

    def __init__(self) -> None:
        self.execution = pb.Execution()
        self._pool = ThreadPoolExecutor(16)
        self._server = grpc.server(self._pool, options=[("grpc.so_reuseport", 0)])
        api_grpc.add_ExecutionServiceServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]
        self.target = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def close(self) -> None:
        self._server.stop(None).wait()
        self._pool.shutdown()

    def Get(self, request: api.GetRequest, context: Any) -> api.GetResponse:  # noqa: N802
        return api.GetResponse(execution=self.execution)

    def Poll(self, request: api.PollRequest, context: Any) -> api.PollResponse:  # noqa: N802
        return api.PollResponse(execution=self.execution)

    def List(self, request: api.ListRequest, context: Any) -> api.ListResponse:  # noqa: N802
        return api.ListResponse(executions=[self.execution])

    def Follow(self, request: api.FollowRequest, context: Any) -> Iterator[api.FollowResponse]:  # noqa: N802
        """In silence; what changes meanwhile is not told here, as a real server need not."""
        yield api.FollowResponse(snapshot=self.execution)
        if is_ended(self.execution):
            yield api.FollowResponse(end=self.execution)
        else:
            over = threading.Event()
            context.add_callback(over.set)
            over.wait()

    def GetServerInfo(self, request: api.GetServerInfoRequest, context: Any) -> api.GetServerInfoResponse:  # noqa: N802
        return api.GetServerInfoResponse(version="0", caller="dev", max_running=1, tail_lines=3)
