"""Tokens of users: a backend makes one for a user, who reads and marks one inbox with it.

Nothing is stored for a token: it is signed, and valid until it expires.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from notifier.domain.inbox import MAX_TOKEN_LENGTH, TOKEN_PREFIX, Inbox, UserToken
from notifier.domain.signing import Purpose, Signer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from notifier.lifecycle import Clock
    from notifier.ports.keys import SecretReader


class UserTokens:
    """Makes and reads user tokens.

    The first of `secrets` signs, or the deployment's own without any; all of them verify. `clock`
    gives the seconds since the epoch.
    """

    def __init__(
        self, secret: SecretReader, *, secrets: Sequence[bytes] = (), clock: Clock = time.time
    ) -> None:
        self._secret = secret
        self._secrets = tuple(secrets)
        self._clock = clock
        self._signer: Signer | None = None

    async def make(self, inbox: Inbox, ttl_s: float) -> tuple[str, UserToken]:
        """Return a token and what it says. Raises StoreUnavailable."""
        token = UserToken(inbox=inbox, expires_at=int(self._clock() + ttl_s))
        signer = await self._signing()
        return TOKEN_PREFIX + signer.sign(Purpose.INBOX, token.payload()), token

    async def read(self, text: str) -> UserToken | None:
        """Return what a token says; None for any text that is no valid one of this deployment.

        Raises StoreUnavailable.
        """
        if len(text) > MAX_TOKEN_LENGTH or not text.isascii() or not is_user_token(text):
            return None
        signer = await self._signing()
        payload = signer.verify(Purpose.INBOX, text.removeprefix(TOKEN_PREFIX))
        try:
            token = None if payload is None else UserToken.parse(payload)
        except ValueError:
            return None
        return token if token is not None and self.holds(token) else None

    def holds(self, token: UserToken) -> bool:
        """Whether a token has not expired."""
        return self._clock() < token.expires_at

    async def _signing(self) -> Signer:
        if self._signer is None:
            self._signer = Signer((*self._secrets, await self._secret.signing_secret()))
        return self._signer


def is_user_token(text: str) -> bool:
    """Whether a text looks like a user token, and not like a key."""
    return text.startswith(TOKEN_PREFIX)
