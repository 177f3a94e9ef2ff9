"""The gRPC server: its options, and the services beside ours."""

from __future__ import annotations

import resource
from collections.abc import Sequence

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from rexec.v1 import execution_service_pb2 as api
from rexec.v1 import execution_service_pb2_grpc as api_grpc

from rexec_server.rpc.auth import CallInterceptor
from rexec_server.rpc.follow import Drain
from rexec_server.rpc.servicer import ExecutionServicer
from rexec_server.rpc.tls import ServerTls

# Calls that have come and that nobody has looked at yet: as many as may follow at once can come at once.
_MOST_PENDING = 16_384

# The time that a connection may take from its first byte to the client's acknowledgement of our settings.
ARRIVAL_SECONDS = 10

_MOST_CONNECTIONS = 4096

Interceptor = grpc.aio.ServerInterceptor

SERVICE = api.DESCRIPTOR.services_by_name["ExecutionService"].full_name

OPTIONS = [
    # On by default: a second server would bind the same port without an error, and get half of the calls.
    ("grpc.so_reuseport", 0),
    # What other languages' clients have by default, both ways.
    ("grpc.max_receive_message_length", 4 * 1024 * 1024),
    ("grpc.max_send_message_length", 4 * 1024 * 1024),
    # Of what is between the two, gRPC refuses some calls and serves others, by chance.
    ("grpc.max_metadata_size", 16 * 1024),
    ("grpc.absolute_max_metadata_size", 16 * 1024),
    # Of more than a thousand calls that come in one moment, gRPC by itself answers some with CANCELLED, by chance.
    ("grpc.server.max_pending_requests", _MOST_PENDING),
    ("grpc.server.max_pending_requests_hard_limit", _MOST_PENDING),
    # By default a call that is not looked at for 30 s is CANCELLED, as if its caller had hung up: on a machine so
    # busy that accepting takes long, callers wait as long as their own deadlines say.
    ("grpc.server_max_unrequested_time_in_server", 3600),
    # Proxies forget idle connections after 60 s; a dead peer is noticed after 50 s.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # By default a client that pings an idle stream more often than every 5 minutes is disconnected.
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    # On by default: of calls that a client begins before it knows how many may be open, some are refused, by chance.
    ("grpc.http.overload_protection", 0),
    # The metadata's limits are enforced against settings that the client has acknowledged: one who never does is cut.
    ("grpc.http2.settings_timeout", ARRIVAL_SECONDS * 1000),
    # By default a connection may take two minutes to finish its TLS handshake.
    ("grpc.server_handshake_timeout_ms", ARRIVAL_SECONDS * 1000),
]


def most_connections() -> int:
    """Return the limit of one listener: so many that descriptors are left for what else we do."""
    return min(_MOST_CONNECTIONS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)


_AMONG_STRANGERS = [
    # Each stream costs memory before its caller is known. With fewer, honest ones wait for those that last.
    ("grpc.max_concurrent_streams", 1024),
]


def _among_strangers() -> list[tuple[str, int]]:
    # For listeners to which clients connect without a credential; a half-open TLS handshake costs some 26 KB.
    return [*_AMONG_STRANGERS, ("grpc.max_allowed_incoming_connections", most_connections())]


class RpcServer:
    """Serves until `drain`. Followers are ended first, so that stopping does not wait for the slowest of them."""

    def __init__(
        self,
        servicer: ExecutionServicer,
        drain: Drain,
        interceptor: CallInterceptor,
        *,
        outer: Sequence[Interceptor] = (),
        channelz_on: bool,
        dev: bool,
    ) -> None:
        """outer: interceptors that see each call before `interceptor` does, and how it has ended."""
        self._drain = drain
        self._interceptor = interceptor
        self._server = grpc.aio.server(
            interceptors=[*outer, self._interceptor], options=OPTIONS if dev else [*OPTIONS, *_among_strangers()]
        )
        self._health = health.aio.HealthServicer()
        api_grpc.add_ExecutionServiceServicer_to_server(servicer, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = [SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME]
        if channelz_on:
            from grpc_channelz.v1 import channelz  # a tenth of the server's start, and rarely wanted

            channelz.add_channelz_servicer(self._server)
            names.append("grpc.channelz.v1.Channelz")
        reflection.enable_server_reflection(names, self._server)

    def listen(self, address: str, tls: ServerTls | None = None) -> int:
        """Binds an address, `host:port` or `unix:PATH`, and returns the port. OSError when it is taken."""
        try:
            if tls:
                return self._server.add_secure_port(address, tls.credentials())
            return self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address}: is it in use?") from error

    def listen_for_ingress(self, address: str) -> None:
        """Binds a unix socket for our own ingress alone: what its connections say of their peer is believed."""
        credentials = grpc.local_server_credentials(grpc.LocalConnectionType.UDS)
        self._server.add_secure_port(address, credentials)

    async def start(self) -> None:
        await self._server.start()
        await self.set_serving(True)

    async def set_serving(self, serving: bool) -> None:
        """What grpc.health.v1 says from now on; while draining it stays NOT_SERVING."""
        status = health_pb2.HealthCheckResponse
        for name in ("", SERVICE):
            await self._health.set(name, status.SERVING if serving else status.NOT_SERVING)

    def refuse(self) -> None:
        """From now on no call begins; those that have begun go on."""
        self._interceptor.draining = True

    async def drain(self, grace: float) -> None:
        """Refuses new calls, ends followers, and gives the others this many seconds."""
        await self._health.enter_graceful_shutdown()
        self.refuse()
        self._drain.begin()
        await self._server.stop(grace)
