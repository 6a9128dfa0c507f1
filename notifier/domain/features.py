"""The features that a worker must understand to send a notification as it was submitted.

A worker of an earlier version leaves out the parts of a content that it does not know. Each
heartbeat therefore names the features of its process, and a submit with a feature that a worker
lacks is refused. From this version on, a worker also leaves a content of a later version to others.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final

PLAIN_PARTS: Final = frozenset({"subject", "body", "html", "data"})
"""The parts of a stored content that every version understands."""

SUPPRESSED_COPIES: Final = "suppressed_copies"
"""The part of a stored content that names the copies of an email that were left out."""

HOLDS: Final = "holds"
"""To park what a pause of its tenant or quiet hours hold. It needs no part of a content."""

TURNS: Final = "turns"
"""To publish and to recover the rows of all turns. It needs no part of a content."""

ERASURE: Final = "erasure"
"""To keep no answer of a provider about a notification that was erased meanwhile."""

WEBHOOKS: Final = "webhooks"
"""To call webhooks. A worker without it does not know their channel."""
WEBHOOK_EVENT: Final = "event"
"""The part of a stored content that is the event of a call of a webhook."""

FEATURES: Final[Mapping[str, Collection[str]]] = {
    "recipient_name": ("recipient_name",),
    "sender": ("from", "reply_to"),
    "copies": ("cc", "bcc", SUPPRESSED_COPIES),
    "headers": ("headers",),
    "attachments": ("attachments",),
    "mime": ("mime",),
    "time_zone": ("time_zone",),
    HOLDS: (),
    TURNS: (),
    WEBHOOKS: (WEBHOOK_EVENT,),
    "templates": ("template", "locale", "template_id", "template_channel", "variables"),
    ERASURE: (),
}
"""Every feature of this version, and the parts of a stored content that need it.

A new feature is a new line. Other versions read the names: a name keeps its meaning for ever.
"""

NEEDED_TO_HOLD: Final = frozenset({HOLDS})
NEEDED_FOR_TURNS: Final = frozenset({TURNS})
NEEDED_TO_ERASE: Final = frozenset({ERASURE})
NO_FEATURES: Final = frozenset[str]()
ALL_FEATURES: Final = frozenset(FEATURES)
KNOWN_PARTS: Final = PLAIN_PARTS.union(*FEATURES.values())
"""A content with any other part is of a later version."""
_FEATURE_OF: Final = {part: name for name, parts in FEATURES.items() for part in parts}


def features_of(parts: Iterable[str]) -> frozenset[str]:
    """Return the features that a content with these parts needs beyond the plain ones."""
    return frozenset(_FEATURE_OF[part] for part in parts if part not in PLAIN_PARTS)
