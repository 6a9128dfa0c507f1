"""Addresses as commands and headers of a mail can carry them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from email.utils import parseaddr
from typing import Final

from notifier.domain.domain_names import InvalidDomain, ascii_domain

CONTROL: Final = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029\ud800-\udfff]")
DOMAIN: Final = re.compile(r"[A-Za-z0-9.-]{1,253}|\[[A-Za-z0-9.:]{1,64}\]")
_LOCAL: Final = re.compile(
    r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.\u00a1-\u2027\u202a-\ud7ff\ue000-\U0010ffff-]{1,64}"
)


class Unsendable(Exception):
    """This notification can never be sent as a mail; `code` names the reason."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Mailbox:
    """An address whose characters are safe in a command and in a header without quotes.

    The domain is in its ASCII form. `name` is its owner's, for headers, and may be empty.
    """

    local: str
    domain: str
    name: str = ""

    @property
    def spec(self) -> str:
        """`local@domain`."""
        return f"{self.local}@{self.domain}"

    @property
    def is_utf8(self) -> bool:
        """Whether it needs SMTPUTF8 (RFC 6531). The domain never does: it has an ASCII form."""
        return not self.local.isascii()

    @classmethod
    def parse(cls, text: str) -> Mailbox:
        """Parse `local@domain`. Raises Unsendable for anything else."""
        local, _, domain = text.rpartition("@")
        try:
            domain = ascii_domain(domain)
        except InvalidDomain as error:
            raise Unsendable("address", str(error)) from error
        if not _LOCAL.fullmatch(local) or not DOMAIN.fullmatch(domain):
            raise Unsendable("address", "expected an address like user@example.com")
        return cls(local, domain)

    @classmethod
    def parse_named(cls, text: str, name: str = "") -> Mailbox:
        """Parse `Name <local@domain>`, or an address of this name. Raises Unsendable."""
        if CONTROL.search(text):
            raise Unsendable(
                "address", "an address must not contain line breaks or control characters"
            )
        if CONTROL.search(name):
            raise Unsendable("header", "a name must not contain line breaks or control characters")
        if "<" not in text:
            mailbox = cls.parse(text)
            return cls(mailbox.local, mailbox.domain, name) if name else mailbox
        name, address = parseaddr(text)
        mailbox = cls.parse(address)
        return cls(mailbox.local, mailbox.domain, name)
