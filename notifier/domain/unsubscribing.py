"""What the link to unsubscribe says: who unsubscribes from what, without the recipient itself."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from notifier.domain.credentials import Mode
from notifier.domain.notification import NotificationId
from notifier.domain.suppressions import SuppressionScope, is_topic
from notifier.domain.tenants import DEFAULT_TENANT, tenant_id, tenant_name

MAX_TOKEN_LENGTH: Final = 512
_VERSION: Final = "1"
_FIELDS: Final = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsubscribe:
    """A wish to get no more of a topic on a channel.

    `recipient` is the hash by which suppressions are stored: the wish is understood also when the
    notification and its recipient are gone.
    """

    scope: SuppressionScope
    channel: str
    topic: str
    recipient: UUID
    notification: NotificationId

    def payload(self) -> str:
        """Return the text to sign, in ASCII and without slashes. No name contains a dot."""
        return ".".join(
            (
                _VERSION,
                tenant_name(self.scope.tenant),
                self.scope.mode,
                self.channel,
                self.topic,
                _encoded(self.recipient),
                _encoded(self.notification),
            )
        )

    @classmethod
    def parse(cls, payload: str) -> Unsubscribe:
        """Read a payload that was signed. Raises ValueError: another version has written it."""
        fields = payload.split(".")
        if len(fields) != _FIELDS or fields[0] != _VERSION:
            raise ValueError("expected a payload of version 1")
        _, tenant, mode, channel, topic, recipient, notification = fields
        if not is_topic(topic):
            raise ValueError("expected the name of a topic")
        return cls(
            scope=SuppressionScope(tenant_id(tenant) or DEFAULT_TENANT, Mode(mode)),
            channel=channel,
            topic=topic,
            recipient=_decoded(recipient),
            notification=NotificationId(_decoded(notification)),
        )


def _encoded(id_: UUID) -> str:
    return urlsafe_b64encode(id_.bytes).decode().rstrip("=")


def _decoded(text: str) -> UUID:
    try:
        return UUID(bytes=urlsafe_b64decode(text + "=="))
    except Error as error:
        raise ValueError("expected base64") from error
