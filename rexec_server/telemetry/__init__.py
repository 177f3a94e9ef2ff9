"""What can be seen of a server from outside: lines in its log, metrics, traces, readiness."""
