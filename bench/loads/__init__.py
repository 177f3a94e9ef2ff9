"""What one caller does to a server while another caller's calls are timed: `python -m bench.loads NAME TARGET`."""
