"""How many notifications of a channel one recipient may get on a day, against abuse."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from notifier.domain.lookups import LookupScope
from notifier.domain.notification import Channel, NewNotification
from notifier.domain.recipients import recipient_identity

RecipientCaps = Mapping[Channel, int]
"""The cap of each channel that has one."""


class CappedRecipient(NamedTuple):
    """A recipient of one tenant and mode on a channel."""

    scope: LookupScope
    channel: Channel
    recipient: str


def capped_recipient(item: NewNotification) -> CappedRecipient:
    """Return as whose notification one counts."""
    return CappedRecipient(item.scope, item.queue.channel, recipient_identity(item.recipient))
