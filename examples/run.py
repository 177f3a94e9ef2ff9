"""Runs a command and prints what it wrote. The server is REXEC_TARGET, or 127.0.0.1:50051."""

from rexec_client import Client

with Client() as client:
    print(client.run(["echo", "hi"], check=True).stdout)
