"""The error of the sandbox's control paths."""

from __future__ import annotations


class InvalidRequest(Exception):
    """A parameter or a field of the body is wrong: `field` names it, `expected` is the remedy."""

    def __init__(self, field: str, expected: str) -> None:
        super().__init__(f"{field}: {expected}")
        self.field = field
        self.expected = expected
