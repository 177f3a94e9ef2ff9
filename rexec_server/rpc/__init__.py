"""The gRPC face of the server; the only folder that knows gRPC and wire messages."""
