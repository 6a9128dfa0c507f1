"""What proves to a service who sends a request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

from notifier.adapters.providers.http.request import Request
from notifier.domain.outcome import Outcome

SIGN_TIMEOUT_S: Final = 1.5
"""How long a send waits until it is signed, in all: a claim must be young when its call begins."""


class NotSigned(Exception):
    """A request cannot be signed now, and was not sent; `outcome` says why."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__()
        self.outcome = outcome


class Signer(Protocol):
    """Signs the requests of one provider. The values of its headers are secrets."""

    async def headers(self, request: Request) -> Mapping[str, str]:
        """Return the headers that sign a request. Raises NotSigned."""
        ...

    def drop_refused(self, headers: Mapping[str, str], code: str) -> bool:
        """Forget what signed a request that was refused with a code.

        Returns whether the request may succeed if it is signed again.
        """
        ...
