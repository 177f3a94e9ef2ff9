"""The process before gRPC on each listener that takes tokens: it lets no header through until a client has settled."""
