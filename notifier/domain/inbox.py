"""Inboxes of users: whose an entry is, which ids users have, and what a user token says."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error
from dataclasses import dataclass
from typing import Final, NamedTuple

import msgspec

from notifier.domain.credentials import Mode
from notifier.domain.tenants import TenantId, tenant_name
from notifier.domain.tenants import tenant_id as stored_tenant

INBOX: Final = "inbox"
"""The channel of inboxes, and the type of its provider."""
MAX_USER_LENGTH: Final = 128
USER_EXPECTED: Final = (
    f"the id of a user: 1 to {MAX_USER_LENGTH} printable characters without blanks, not . or .."
)
MAX_ENTRY_BYTES: Final = 32 * 1024
"""Of subject, body and data together."""
MAX_MARKED: Final = 200
"""How many entries one request marks by their ids."""
MAX_UNREAD: Final = 1000
"""As many unread entries are counted."""
MAX_TOKEN_S: Final = 86_400
DEFAULT_TOKEN_S: Final = 3600
TOKEN_PREFIX: Final = "ntu_"  # noqa: S105 the same for all
"""With it a user token begins. No key begins so."""
MAX_TOKEN_LENGTH: Final = 2048
_VERSION: Final = 1
_DOTS: Final = frozenset({".", ".."})
"""Browsers remove such a segment from the path of a URL, whatever its encoding."""


class Inbox(NamedTuple):
    """Whose inbox it is. Ids of users are compared as they are, character by character."""

    tenant: TenantId
    mode: Mode
    user: str


def is_user_id(text: str) -> bool:
    """Return whether this can be the id of a user."""
    is_short = 1 <= len(text) <= MAX_USER_LENGTH
    return is_short and text.isprintable() and " " not in text and text not in _DOTS


@dataclass(frozen=True, slots=True, kw_only=True)
class UserToken:
    """What a user token says: its holder may read and mark one inbox, until it expires.

    `expires_at` is in seconds since the epoch.
    """

    inbox: Inbox
    expires_at: int

    def payload(self) -> str:
        """Return the text to sign, in the alphabet of base64url."""
        inbox = self.inbox
        fields = (_VERSION, tenant_name(inbox.tenant), inbox.mode, inbox.user, self.expires_at)
        return urlsafe_b64encode(msgspec.json.encode(fields)).decode().rstrip("=")

    @classmethod
    def parse(cls, payload: str) -> UserToken:
        """Read a payload that was signed. Raises ValueError: another version has written it."""
        try:
            document = urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
            version, tenant, mode, user, expires_at = msgspec.json.decode(
                document, type=tuple[int, str, Mode, str, int]
            )
        except (Error, msgspec.DecodeError) as error:
            raise ValueError("expected the payload of a user token") from error
        if version != _VERSION:
            raise ValueError(f"got version {version}, expected {_VERSION}")
        return cls(inbox=Inbox(stored_tenant(tenant), mode, user), expires_at=expires_at)
