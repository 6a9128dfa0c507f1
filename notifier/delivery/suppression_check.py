"""Finds which submits may not be sent because their recipients are suppressed.

While there is no suppression at all, no submit asks. A process may believe this for UNKNOWN_FOR_S
after it began to look; whoever adds the first suppression waits that long before it answers.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec.structs import replace

from notifier.domain.errors import StoreError
from notifier.domain.features import SUPPRESSED_COPIES
from notifier.domain.mailbox import NamedAddress
from notifier.domain.recipients import recipient_identity
from notifier.domain.suppressions import suppression_of
from notifier.ports.suppressions import UNKNOWN_FOR_S, Recipient

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from notifier.domain.notification import NewNotification
    from notifier.domain.suppressions import SuppressedOn
    from notifier.ports.suppressions import SuppressionReader

CHECK_INTERVAL_S: Final = 1.0
_COPIES: Final = ("cc", "bcc")
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class SuppressionCheck:
    """Marks the submits of a batch that may not be sent, and leaves suppressed copies out."""

    def __init__(self, store: SuppressionReader) -> None:
        self._store = store
        self._none_until = 0.0

    async def run_once(self) -> None:
        """Look whether there is any suppression."""
        looked_at = time.monotonic()
        try:
            has_any = await self._store.has_suppressions()
        except StoreError:
            return  # what was seen last holds for its time; then each batch asks
        self._none_until = 0.0 if has_any else looked_at + UNKNOWN_FOR_S

    async def apply(self, items: Sequence[NewNotification]) -> Sequence[NewNotification]:
        """Return the items, those that may not be sent with the reason. Raises StoreError."""
        if time.monotonic() < self._none_until:
            return items
        recipients = {recipient for item in items for recipient in _recipients(item)}
        found = await self._store.suppressed(recipients)
        return [_checked(item, found) for item in items] if found else items


def _recipients(item: NewNotification) -> Sequence[Recipient]:
    """Return the recipient, and those of an email's copies."""
    own = Recipient.of(item)
    if not item.has_copies:
        return (own,)
    content = _decode(item.content)
    copies = [text for name in _COPIES for text in content.get(name, ())]
    return (own, *(own._replace(recipient=_address(text)) for text in copies))


def _checked(
    item: NewNotification, found: Mapping[Recipient, Sequence[SuppressedOn]]
) -> NewNotification:
    own = Recipient.of(item)

    def entry_of(recipient: str) -> SuppressedOn | None:
        entries = found.get(own._replace(recipient=recipient), ())
        return suppression_of(entries, item.channel, item.topic)

    entry = entry_of(own.recipient)
    if entry is not None:
        return replace(item, suppressed=entry.reason)
    if not item.has_copies:
        return item
    content = _decode(item.content)
    left_out: list[str] = []
    for name in _COPIES:
        texts = content.get(name, [])
        kept = [text for text in texts if entry_of(_address(text)) is None]
        if len(kept) < len(texts):
            left_out += [_address(text) for text in texts if text not in kept]
            content[name] = kept
    if not left_out:
        return item
    return replace(item, content=msgspec.json.encode(content | {SUPPRESSED_COPIES: left_out}))


def _address(text: str) -> str:
    """Return the address of a mailbox as it is stored. Raises nothing."""
    try:
        return recipient_identity(NamedAddress.parse(text).address)
    except ValueError:
        return text
