"""Domain names in their ASCII form, by IDNA 2008 (RFC 5891): the only conversion in the program.

Python's own codec implements IDNA 2003, which turns `straße.example` into another domain.
"""

from __future__ import annotations

import idna


class InvalidDomain(ValueError):
    """A name that has no ASCII form."""


def ascii_domain(name: str) -> str:
    """The name for DNS and for protocols; ASCII stays as it is. Raises InvalidDomain.

    Upper case and width variants are mapped first (UTS 46, not transitional), as browsers do.
    """
    if name.isascii():
        return name
    try:
        return idna.encode(name, uts46=True).decode()
    except (idna.IDNAError, UnicodeError) as error:
        raise InvalidDomain(f"{name!r} has no ASCII form: {error}") from error
