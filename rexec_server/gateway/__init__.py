"""The JSON gateway: a thin Flask front, and a client of the gRPC API like any other."""
