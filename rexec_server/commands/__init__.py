"""What `rexec-server` does besides serving: one module per command, imported when it is asked for."""
