"""One benchmark in each file, with its goals beside it."""
