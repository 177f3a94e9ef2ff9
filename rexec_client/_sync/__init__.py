# Generated from rexec_client/_async/__init__.py by scripts/gen_sync_client.py: do not edit.
"""The client, written once: `_sync` is generated from this folder by scripts/gen_sync_client.py.

Only `backend.py` is written for both worlds by hand: it holds all that a replacement of words cannot turn.
"""
