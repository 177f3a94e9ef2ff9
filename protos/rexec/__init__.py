"""The wire contract of rexec: `rexec.v1` holds the messages and the service that protoc generated."""
