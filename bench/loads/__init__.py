"""Loads of one caller, while another caller's calls are timed: `python -m bench.loads NAME TARGET`."""
