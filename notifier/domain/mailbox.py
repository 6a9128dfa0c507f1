"""A mailbox as people write it: `ada@example.com` or `Ada Lovelace <ada@example.com>`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

MAX_NAME_LENGTH: Final = 255
MAX_TEXT_LENGTH: Final = 1000
"""Characters of name and address as they are written: it bounds the time of `parse`."""
NAME_EXPECTED: Final = (
    f"a name of at most {MAX_NAME_LENGTH} characters, without control characters, marks of text "
    'direction and "=?"'
)
_SYNTAX: Final = re.compile(
    r'(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>[^"<>,;:\\@()\[\]]*?)) *'
    r"<(?P<address>[^<>]*)>"
)
UNPRINTABLE: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff"  # ends of lines, controls, lone surrogates
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"  # marks that turn the direction of text
)
"""Characters that let a header's text look like something else, or add a header."""
_ATOMS: Final = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~ \u00a1-\U0010ffff-]*")


@dataclass(frozen=True, slots=True)
class NamedAddress:
    """An address and the name of its owner, which may be empty. `str()` writes both."""

    name: str
    address: str

    def __str__(self) -> str:
        """Write it as `parse` reads it, with quotes where the name needs them."""
        if not self.name:
            return self.address
        if _ATOMS.fullmatch(self.name):
            return f"{self.name} <{self.address}>"
        escaped = re.sub(r'(["\\])', r"\\\1", self.name)
        return f'"{escaped}" <{self.address}>'

    @classmethod
    def parse(cls, text: str) -> NamedAddress:
        """Separate name and address. The address is not checked.

        Raises ValueError, which says what was expected.
        """
        if len(text) > MAX_TEXT_LENGTH:
            raise ValueError(f"an address with its name in at most {MAX_TEXT_LENGTH:,} characters")
        if "<" not in text:
            return cls("", text)
        match = _SYNTAX.fullmatch(text)
        if match is None:
            raise ValueError(
                "an address such as ada@example.com or Ada <ada@example.com>, with a name like "
                '"Lovelace, Ada" in quotes'
            )
        quoted = match["quoted"]
        name = match["plain"] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        name = name.strip(" ")
        if len(name) > MAX_NAME_LENGTH or UNPRINTABLE.search(name) or "=?" in name:
            raise ValueError(NAME_EXPECTED)
        return cls(name, match["address"])
