"""What an execution is: commands, states, the log, the index."""
