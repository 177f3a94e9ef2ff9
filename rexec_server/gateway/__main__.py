"""`python -m rexec_server.gateway` is the `rexec-gateway` command."""

from rexec_server.gateway.cli import main

main()
