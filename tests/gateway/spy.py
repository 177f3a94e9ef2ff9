"""A gRPC server that lets nobody in, and remembers who asked for what."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.message import Message
from google.rpc import status_pb2
from grpc_status import rpc_status


class Spy(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Ends each call with the status that it was told last."""

    def __init__(self, credentials: grpc.ServerCredentials | None = None) -> None:
        """credentials: it speaks TLS."""
        self.calls: list[tuple[str, dict[str, str | bytes]]] = []
        self._status = status_pb2.Status()
        self.end_with(grpc.StatusCode.UNAUTHENTICATED, "the key alice-1 has expired")
        self._pool = ThreadPoolExecutor(4)
        self._server = grpc.server(self._pool, handlers=[self], options=[("grpc.so_reuseport", 0)])
        listen = self._server.add_secure_port if credentials else self._server.add_insecure_port
        port = listen("127.0.0.1:0", *([credentials] if credentials else []))
        self.target = f"127.0.0.1:{port}"
        self._server.start()

    def end_with(self, code: grpc.StatusCode, message: str, *details: Message) -> None:
        packed = []
        for detail in details:
            packed.append(Packed())
            packed[-1].Pack(detail)
        self._status = status_pb2.Status(code=code.value[0], message=message, details=packed)

    def service(self, handler_call_details: Any) -> Any:
        metadata = {name: value for name, value in handler_call_details.invocation_metadata if name != "user-agent"}
        self.calls.append((handler_call_details.method.rpartition("/")[2], metadata))
        return grpc.unary_unary_rpc_method_handler(self._refuse)

    def close(self) -> None:
        self._server.stop(None).wait()
        self._pool.shutdown()

    def _refuse(self, _: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort_with_status(rpc_status.to_status(self._status))
        raise AssertionError
