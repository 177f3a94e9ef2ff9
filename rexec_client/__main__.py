"""`python -m rexec_client` is the `rexec` command."""

from rexec_client.cli import main

main()
