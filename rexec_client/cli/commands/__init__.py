"""One command a file; app.py imports each when it is asked for."""
