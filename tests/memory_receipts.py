"""Receipts in memory, behind the ports that the API needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final
from uuid import UUID

from notifier.adapters.providers.signed_receipts import SignedReceiptVerifier
from notifier.domain.receipts import NewReceipt, ReceiptEvent, ReceiptResult

SECRET: Final = "whsec_dGhlIHNlY3JldCBvZiB0aGUgdGVzdHMgb2YgcmVjZWlwdHM="
SECRET_BYTES: Final = b"the secret of the tests of receipts"


class MemoryReceipts:
    """ReceiptStore and ReceiptObserver in one. `add` raises `error`, if it is set."""

    def __init__(self, *providers: str) -> None:
        self.verifiers = dict.fromkeys(providers, SignedReceiptVerifier(SECRET_BYTES))
        self.stored: dict[tuple[str, UUID], NewReceipt] = {}
        self.error: Exception | None = None
        self.received: Counter[tuple[str, ReceiptEvent]] = Counter()
        self.refused: Counter[str] = Counter()
        self.ended: Counter[tuple[str, ReceiptResult]] = Counter()

    async def add(self, provider: str, receipts: Sequence[NewReceipt]) -> int:
        if self.error is not None:
            raise self.error
        before = len(self.stored)
        for each in receipts:
            self.stored.setdefault((provider, each.key), each)
        return len(self.stored) - before

    def receipts_received(self, provider: str, event: ReceiptEvent, count: int) -> None:
        self.received[provider, event] += count

    def receipts_refused(self, provider: str) -> None:
        self.refused[provider] += 1

    def receipt_ended(self, provider: str, result: ReceiptResult) -> None:
        self.ended[provider, result] += 1
