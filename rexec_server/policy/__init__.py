"""Callers: who may do what."""
