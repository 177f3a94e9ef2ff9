"""How to run rexec where it matters: an example."""
