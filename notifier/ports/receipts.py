"""Receipts: how a request with receipts is verified, and how receipts are kept and matched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import NamedTuple, Protocol
from uuid import UUID

from notifier.domain.receipts import NewReceipt, ReceiptEvent, ReceiptResult


class ReceiptRefusal(Enum):
    """Why a request is refused.

    SIGNATURE: it is not of the provider, or is too old. BODY: the provider signed it, but it cannot
    be read. TOO_MANY: it has more receipts than MAX_RECEIPTS.
    """

    SIGNATURE = "signature"
    BODY = "body"
    TOO_MANY = "too many"


class ReceiptVerifier(Protocol):
    """Verifies and reads the requests of one provider. It has the provider's settings."""

    def verify(
        self, body: bytes, headers: Mapping[str, str], now: datetime
    ) -> Sequence[NewReceipt] | ReceiptRefusal:
        """Return the receipts of a request, or why it is refused. Raises nothing.

        The names of the headers are in lower case. Events that are none of ReceiptEvent are left
        out. Secrets are compared in constant time.
        """
        ...


class ReceiptStore(Protocol):
    """Stores what was verified. Raises StoreUnavailable."""

    async def add(self, provider: str, receipts: Sequence[NewReceipt]) -> int:
        """Store receipts, each once; return how many are new. All or none are stored."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchingRules:
    """How long receipts wait, and on which channels the messages of each provider are."""

    keep_unmatched_s: float
    channels: Mapping[str, Sequence[str]]


class MatchedReceipt(NamedTuple):
    """What became of a receipt."""

    provider: str
    event: ReceiptEvent
    result: ReceiptResult


class ReceiptPass(NamedTuple):
    """What a step did with the receipts that were due.

    `found` receipts were looked at; `ended` are done; `suppressions` were stored.
    """

    found: int
    ended: Sequence[MatchedReceipt]
    suppressions: Sequence[UUID]


class ReceiptMatching(Protocol):
    """Gives stored receipts to their notifications. Raises StoreError."""

    async def match(self, limit: int) -> ReceiptPass:
        """Take at most `limit` receipts that are due, in one transaction.

        Those whose notification is known are kept with it, settle its status, and suppress its
        recipient. The others are due again later, and are removed after `keep_unmatched_s`. Raises
        StoreRejected if Postgres rejects one of them; nothing is changed then.
        """
        ...

    async def put_off(self) -> None:
        """Let the receipt that is due next wait until the others were looked at."""
        ...
