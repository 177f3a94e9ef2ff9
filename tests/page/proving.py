"""A server that asks for tokens, behind a real gateway: what the page sends is opened here, as a server would."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import grpc
from rexec.v1 import execution_service_pb2 as api

from tests.client.fakes import FakeServer, chunk, end, ended, execution, follow, output, reply, snapshot
from tests.client.keys import Key
from tests.gateway.alone import Alone
from tests.page.conftest import SHARED

LOG = b"proved\n"
DONE = ended(LOG, exec_id="x", caller="alice", state=3, exit_code=0, shell="echo proved", output_complete=True)


class ProvingServer(FakeServer):
    """Answers only calls with a token of `key`, and keeps the claims of each."""

    def __init__(self, key: Key) -> None:
        super().__init__()
        self.key = key
        self.claims: list[dict[str, Any]] = []
        self.refused = 0
        self._lock = threading.Lock()
        self.answer_as_usual()

    def answer_as_usual(self) -> None:
        """One execution, which has ended."""
        self.on("GetServerInfo", reply(api.GetServerInfoResponse(caller="alice", version="1")))
        self.on("List", reply(api.ListResponse(executions=[DONE])))
        self.on("Get", reply(api.GetResponse(execution=execution(LOG, exec_id="x", caller="alice"))))
        self.on("Follow", follow(snapshot(DONE), output(chunk(0, LOG)), end(DONE)))

    def _answer(self, rpc: str, request: Any, context: grpc.ServicerContext) -> Any:
        sent = dict(context.invocation_metadata()).get("authorization", "")
        try:
            _, claims = self.key.open(sent.removeprefix("Bearer "))
        except Exception:
            self.refused += 1
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "not authenticated")
        with self._lock:
            self.claims.append({"rpc": rpc, "seconds_left": context.time_remaining(), **claims})
        return super()._answer(rpc, request, context)


class Proving:
    """The server, and its gateway."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.key = Key(directory / "alice.jwk")
        self.server = ProvingServer(self.key)
        self.server.__enter__()
        # By the number of streams the gateway is known as one that several tests use.
        self._gateway = Alone(directory, self.server.target, "--max-streams", SHARED[1])
        self.gateway = self._gateway.url

    @property
    def log(self) -> str:
        return self._gateway.log

    def close(self) -> None:
        self._gateway.stop()
        self.server.__exit__()
