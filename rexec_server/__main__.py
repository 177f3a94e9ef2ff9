"""`python -m rexec_server` is `rexec-server`."""

from rexec_server.cli import main

main()
