"""What is measured: rexec, what people would use instead, and what the machine allows at most."""
