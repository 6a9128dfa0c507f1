"""The mails in what clients sent to an SMTP server. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

_MAIL: Final = re.compile(
    rb"MAIL FROM:[^\r\n]*? ENVID=(?P<id>[^\s.]+)[^\r\n]*\r\n"
    rb"(?:RCPT TO:[^\r\n]*\r\n)+"
    rb"DATA(?!\r\n(?:MAIL |RSET|QUIT|NOOP)).*?\r\n\.\r\n",
    re.DOTALL,
)
"""After DATA a command, and no text, follows where the server refused it."""


class Mail(NamedTuple):
    """A mail for a notification. `text` begins with the commands that name sender and recipients.

    Lines that begin with a dot have another one before it.
    """

    id: str
    text: str


def mails(sessions: Iterable[bytes | bytearray]) -> Iterator[Mail]:
    """Yield the mails that were sent whole; `sessions` have what each client sent."""
    for sent in sessions:
        for found in _MAIL.finditer(sent):
            yield Mail(found["id"].decode(), found[0].decode("utf-8", "replace"))
