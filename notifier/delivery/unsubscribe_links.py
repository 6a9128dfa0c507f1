"""Adds the headers for unsubscribing with one click (RFC 8058) to emails with a topic.

They are added to the content when a submit is stored, so that each provider sends them as it sends
the caller's headers. The token in the link names no recipient, and nothing is stored for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec.structs import replace

from notifier.domain.signing import Purpose, Signer
from notifier.domain.suppressions import SuppressionScope
from notifier.domain.unsubscribing import MAX_TOKEN_LENGTH, Unsubscribe
from notifier.ports.suppressions import ONE_CLICK, Recipient

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from uuid import UUID

    from notifier.domain.notification import NewNotification
    from notifier.ports.keys import SecretReader
    from notifier.ports.suppressions import RecipientHashes

UNSUBSCRIBE_PATH: Final = "/v1/unsubscribe"
LINK_HEADER: Final = "List-Unsubscribe"
POST_HEADER: Final = "List-Unsubscribe-Post"
_OWN: Final = frozenset({LINK_HEADER.lower(), POST_HEADER.lower()})
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class UnsubscribeLinks:
    """Makes links, and reads their tokens.

    `channels` are those whose notifications are emails. The first of `secrets` signs, or the
    deployment's own without any; all of them verify.
    """

    def __init__(
        self,
        *,
        hashes: RecipientHashes,
        secret: SecretReader,
        secrets: Sequence[bytes] = (),
        public_url: str,
        channels: Collection[str],
    ) -> None:
        self._hashes = hashes
        self._secret = secret
        self._secrets = tuple(secrets)
        self._public_url = public_url.rstrip("/")
        self._channels = frozenset(channels)
        self._signer: Signer | None = None

    async def apply(self, items: Sequence[NewNotification]) -> Sequence[NewNotification]:
        """Return the items, emails with a topic with their headers. Raises StoreError."""
        concerned = [item for item in items if self._is_concerned(item)]
        if not concerned:
            return items
        signer = await self._signing()
        hashes = await self._hashes.recipient_hashes({Recipient.of(item) for item in concerned})
        return [
            self._with_link(item, hashes, signer) if self._is_concerned(item) else item
            for item in items
        ]

    async def read(self, token: str) -> Unsubscribe | None:
        """Return what a token says; None for any text that this deployment has not signed.

        Raises StoreError.
        """
        if len(token) > MAX_TOKEN_LENGTH or not token.isascii():
            return None
        payload = (await self._signing()).verify(Purpose.UNSUBSCRIBE, token)
        try:
            return None if payload is None else Unsubscribe.parse(payload)
        except ValueError:
            return None

    def _is_concerned(self, item: NewNotification) -> bool:
        return item.topic is not None and item.suppressed is None and item.channel in self._channels

    def _with_link(
        self, item: NewNotification, hashes: Mapping[Recipient, UUID], signer: Signer
    ) -> NewNotification:
        wish = Unsubscribe(
            scope=SuppressionScope(item.tenant, item.mode),
            channel=item.channel,
            topic=item.topic or "",
            recipient=hashes[Recipient.of(item)],
            notification=item.id,
        )
        token = signer.sign(Purpose.UNSUBSCRIBE, wish.payload())
        content = _decode(item.content)
        given = content.get("headers") or {}
        content["headers"] = {
            **{name: value for name, value in given.items() if name.lower() not in _OWN},
            LINK_HEADER: f"<{self._public_url}{UNSUBSCRIBE_PATH}/{token}>",
            POST_HEADER: "=".join(ONE_CLICK),
        }
        return replace(item, content=msgspec.json.encode(content))

    async def _signing(self) -> Signer:
        if self._signer is None:
            self._signer = Signer((*self._secrets, await self._secret.signing_secret()))
        return self._signer
