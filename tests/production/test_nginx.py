"""deploy/nginx.conf before a listener for tokens: callers are served through it, and floods of headers end there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from rexec.v1 import execution_service_pb2 as api
from rexec.v1 import execution_service_pb2_grpc as api_grpc

from bench.http2_flood import Flood
from tests.production.deployed import ROOT, free_ports
from tests.production.site import Site
from tests.production.test_limits import info, memory
from tests.production.test_strangers import MOST_MEMORY
from tests.rpc.calls import refused, request

NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")

# The text of the distribution's own nginx.conf around it, for a directory of the test's.
_AROUND = """
daemon off;
pid nginx.pid;
error_log stderr;
events { worker_connections 4096; }
http {
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    include rexec.conf;
}
"""


class Proxied:
    """A site without an ingress, and nginx before it, with the configuration of deploy/."""

    def __init__(self, directory: Path) -> None:
        assert NGINX
        self.port, *behind = free_ports(3)
        self.site = Site(directory / "site", ingress=False, listen=[f"127.0.0.1:{port}" for port in behind])
        self.site.start()
        text = (ROOT / "deploy" / "nginx.conf").read_text()
        for usual, ours in (
            ("listen 50052", f"listen 127.0.0.1:{self.port}"), ("127.0.0.1:50053", f"127.0.0.1:{behind[0]}"),
            ("/etc/rexec/", f"{self.site.directory}/"),
        ):  # fmt: skip
            assert usual in text
            text = text.replace(usual, ours)
        place = directory / "nginx"
        place.mkdir()
        (place / "rexec.conf").write_text(text)
        (place / "nginx.conf").write_text(_AROUND)
        with open(place / "log", "wb") as log:
            self._process = subprocess.Popen(
                [NGINX, "-p", str(place), "-c", str(place / "nginx.conf")], stdout=log, stderr=log
            )
        self.log = place / "log"

    def channel(self) -> grpc.Channel:
        credentials = grpc.ssl_channel_credentials(self.site.authority.certificate)
        options = [("grpc.enable_http_proxy", 0)]
        return grpc.secure_channel(f"127.0.0.1:{self.port}", credentials, options=options)

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(60)
        self.site.close()


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    if not NGINX:
        pytest.skip("there is no nginx here: apt-get install nginx-light")
    found = Proxied(tmp_path_factory.mktemp("nginx"))
    yield found
    found.close()


def test_calls_and_streams_go_through(proxied: Proxied) -> None:
    """A caller's commands, their output, and refusals with their reasons."""
    with proxied.channel() as channel:
        stub = api_grpc.ExecutionServiceStub(channel)
        assert info(stub, proxied.site.bearer("alice"), wait_for_ready=True).caller == "alice"
        started = stub.Exec(request("echo", "through nginx"), metadata=proxied.site.bearer("alice"), timeout=60)
        asked = api.FollowRequest(exec_id=started.execution.exec_id)
        events = list(stub.Follow(asked, metadata=proxied.site.bearer("alice"), timeout=60))
        output = b"".join(chunk.data for event in events for chunk in event.output.chunks)
        assert output == b"through nginx\n"
        refused(lambda: info(stub, [("authorization", "Bearer nobody")]), "UNAUTHENTICATED")


def test_s2_a_flood_of_headers_ends_there(proxied: Proxied) -> None:
    """The connection is closed, the server hears nothing of it, and another caller is served."""
    with proxied.channel() as channel:
        stub = api_grpc.ExecutionServiceStub(channel)
        info(stub, proxied.site.bearer("alice"), wait_for_ready=True)
        before = memory(proxied.site)
        flood = Flood(("127.0.0.1", proxied.port), proxied.site.path("ca.pem"), frames=300, seconds=60)
        assert flood.run().disconnected == 1
        assert info(stub, proxied.site.bearer("alice")).caller == "alice"
        assert memory(proxied.site) - before < MOST_MEMORY


def test_nginx_says_nothing_against_its_configuration(proxied: Proxied) -> None:
    """It starts without a warning, but for what newer versions would have written differently."""
    said = [line for line in proxied.log.read_text().splitlines() if re.search(r"\[(warn|emerg|alert)\]", line)]
    assert [line for line in said if "http2" not in line and '"user" directive' not in line] == []
