"""An argv with holes: recognises the requests that mean it, and builds what is run."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_PART = re.compile(r"(?P<brace>\{\{|\}\})|\{(?P<slot>[a-z][a-z0-9_]{0,31})\}|(?P<text>[^{}]+)|(?P<wrong>.)", re.DOTALL)


class Mismatch(Exception):
    """The request means another command; the message says why, for the operator."""


@dataclass(frozen=True, slots=True)
class Element:
    """One element: a literal, or a slot with what stands before and after it."""

    prefix: str
    slot: str = ""  # empty: a literal
    suffix: str = ""

    @classmethod
    def parse(cls, text: str) -> Element:
        """`{name}` is a slot, `{{` and `}}` are braces. ValueError."""
        prefix, slot, suffix = "", "", ""
        for part in _PART.finditer(text):
            if part["wrong"]:
                raise ValueError(f"{text!r} has a single {part['wrong']}: a slot is {{name}}, a brace is {{{{ or }}}}")
            if part["slot"]:
                if slot:
                    raise ValueError(f"{text!r} has two slots; one element takes one")
                slot = part["slot"]
            elif slot:
                suffix += part["text"] or part["brace"][0]
            else:
                prefix += part["text"] or part["brace"][0]
        return cls(prefix, slot, suffix)

    def match(self, text: str) -> str:
        """What stands in the slot. Mismatch."""
        if not self.slot:
            if text != self.prefix:
                raise Mismatch(f"{text!r} is not {self.prefix!r}")
            return ""
        end = len(text) - len(self.suffix)
        if end < len(self.prefix) or not text.startswith(self.prefix) or not text.endswith(self.suffix):
            raise Mismatch(f"{text!r} is not {self.prefix}{{{self.slot}}}{self.suffix}")
        return text[len(self.prefix) : end]

    def fill(self, values: Mapping[str, str]) -> str:
        return self.prefix + values[self.slot] + self.suffix if self.slot else self.prefix


@dataclass(frozen=True, slots=True)
class Skeleton:
    """All elements; the first is the program, an absolute path."""

    elements: tuple[Element, ...]

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> Skeleton:
        """ValueError."""
        skeleton = cls(tuple(Element.parse(argument) for argument in arguments))
        if not arguments or skeleton.elements[0].slot:
            raise ValueError("arguments must start with the program's path, which no slot fills")
        program = skeleton.program
        if not program.startswith("/") or os.path.normpath(program) != program or program.startswith("//"):
            raise ValueError(f"{program!r} is no absolute path in its plain form, such as /usr/bin/tail")
        for slot in skeleton.slots:
            if skeleton.slots.count(slot) > 1:
                raise ValueError(f"slot {slot!r} is used twice; give each place a slot of its own")
        return skeleton

    @property
    def program(self) -> str:
        return self.elements[0].prefix

    @property
    def slots(self) -> tuple[str, ...]:
        return tuple(element.slot for element in self.elements if element.slot)

    def match(self, arguments: Sequence[str]) -> dict[str, str]:
        """What stands in each slot, as it was given. Mismatch."""
        if len(arguments) != len(self.elements):
            raise Mismatch(f"{len(arguments)} arguments, where it has {len(self.elements)} with the program")
        if arguments[0] not in (self.program, os.path.basename(self.program)):
            raise Mismatch(f"its program is {self.program}")
        pairs = list(zip(self.elements, arguments, strict=True))[1:]
        found = {element.slot: element.match(argument) for element, argument in pairs}
        found.pop("", None)
        return found

    def build(self, values: Mapping[str, str]) -> tuple[str, ...]:
        """What is run. In one pass: braces in a value mean nothing."""
        return tuple(element.fill(values) for element in self.elements)
