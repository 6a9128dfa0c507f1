"""The senders of a tenant: what the `from` of its emails and text messages may be."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from notifier.domain.mailbox import NamedAddress
from notifier.domain.recipients import recipient_identity

MAX_SENDERS: Final = 50


@dataclass(frozen=True, slots=True)
class Senders:
    """What a `from` may be: `texts` as a person wrote them, in that order.

    A text with an @ is a mailbox such as `Shop <no-reply@shop.example>`, one with a dot a domain,
    whose addresses may all be used, and any other one the sender of text messages.
    """

    texts: tuple[str, ...] = ()
    is_open: bool = False
    """Whether everything is allowed if there are no texts."""
    _addresses: frozenset[str] = field(init=False, compare=False, repr=False)
    mailbox: str | None = field(init=False, compare=False, repr=False)
    """The first mailbox: the `from` of emails that have none; and that of text messages."""
    text_sender: str | None = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Sort the texts by kind."""
        mailboxes = [text for text in self.texts if "@" in text]
        others = [text for text in self.texts if "@" not in text]
        domains = [text.lower() for text in others if "." in text]
        text_senders = [text for text in others if "." not in text]
        addresses = [recipient_identity(NamedAddress.parse(text).address) for text in mailboxes]
        object.__setattr__(self, "_addresses", frozenset([*addresses, *domains]))
        object.__setattr__(self, "mailbox", mailboxes[0] if mailboxes else None)
        object.__setattr__(self, "text_sender", text_senders[0] if text_senders else None)

    @property
    def allows_all(self) -> bool:
        """Whether nothing is forbidden."""
        return self.is_open and not self.texts

    def allows_address(self, address: str) -> bool:
        """Whether an email may come from this address."""
        identity = recipient_identity(address)
        domain = identity.rpartition("@")[2]
        return self.allows_all or identity in self._addresses or domain in self._addresses

    def allows_text_sender(self, sender: str) -> bool:
        """Whether a text message may come from this number or name."""
        return self.allows_all or sender in self.texts

    @property
    def expected(self) -> str:
        """What a `from` must be, for the caller."""
        if not self.texts:
            return "none: the tenant has no senders"
        return f"one of the senders of the tenant: {', '.join(self.texts)}"


ANY_SENDER: Final = Senders(is_open=True)
