"""The processes that fork: the runner, and one shim per execution."""
