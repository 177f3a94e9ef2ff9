"""The rexec server: runs commands for callers who are somewhere else."""
