"""The one place where rexec's version is written."""

__version__ = "0.1.0"
