"""What is wrong with a request is said in a few words, however long the request is."""

from __future__ import annotations

from typing import Any

import pytest

from rexec_server.core.command import Command, check_exec_id
from rexec_server.core.errors import InvalidRequest, NotFound

LONG = "x" * 1_000_000
# What travels in the headers of an answer: gRPC takes 8 KiB of them.
FEW = 500


@pytest.mark.parametrize(
    "fields",
    [
        {"working_directory": LONG},
        {"environment_variables": {f"A={LONG}": "1"}},
        {"environment_variables": {LONG: "\0"}},
        {"labels": {LONG: "1"}},
    ],
    ids=["directory", "variable", "value", "label"],
)
def test_a_refusal_repeats_little_of_the_request(fields: dict[str, Any]) -> None:
    """Neither the field's name nor the message grows with the request, and both begin like what they mean."""
    with pytest.raises(InvalidRequest) as caught:
        Command(arguments=("true",), **fields).check()
    assert len(caught.value.message) < FEW
    assert len(caught.value.field) < FEW
    assert "x" * 100 in caught.value.message


def test_an_unknown_id_is_repeated_in_part() -> None:
    """An id of any length can be asked for."""
    assert len(NotFound(LONG).message) < FEW
    assert NotFound("short").message == "no execution 'short'"
    with pytest.raises(InvalidRequest) as caught:
        check_exec_id(LONG)
    assert len(caught.value.message) < FEW
