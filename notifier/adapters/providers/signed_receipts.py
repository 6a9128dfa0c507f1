"""Receipts in Notifier's own form, signed by the Standard Webhooks scheme.

The sandbox sends them. So can a program of yours that translates the receipts of a provider.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Final
from uuid import UUID

import msgspec
from msgspec import Meta

from notifier.adapters.providers.verdict import printable
from notifier.domain.errors import ConfigError
from notifier.domain.idempotency import digest
from notifier.domain.outcome import MAX_CODE_LENGTH, MAX_DETAIL_LENGTH, MAX_REFERENCE_LENGTH
from notifier.domain.receipts import MAX_RECEIPTS, NewReceipt, ReceiptEvent, UndeliveredReason
from notifier.domain.webhook_signature import SECRET_EXPECTED, is_signed, secret_bytes
from notifier.ports.receipts import ReceiptRefusal, ReceiptVerifier

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from notifier.adapters.providers.settings import SignedReceiptSettings

MAX_RECIPIENT_LENGTH: Final = 4096
_YEARS: Final = range(1970, 9999)
"""Of which Postgres and Python can store every instant in every time zone."""


class SignedReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """A receipt of a request. Unknown fields are ignored: they may be of a later version.

    `reference` is the provider's id of the message, as in the attempt. Two receipts with one `id`
    are copies; without one, two that are alike.
    """

    event: ReceiptEvent
    reference: Annotated[str, Meta(min_length=1)]
    at: Annotated[datetime, Meta(tz=True)]
    id: str | None = None
    recipient: str | None = None
    reason: UndeliveredReason | None = None
    code: str = ""
    detail: str = ""


class SignedReceiptBatch(msgspec.Struct, frozen=True):
    """The body of a request."""

    receipts: list[SignedReceipt]


_decode: Final = msgspec.json.Decoder(SignedReceiptBatch).decode


class SignedReceiptVerifier:
    """Implements ports.receipts.ReceiptVerifier."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def verify(
        self, body: bytes, headers: Mapping[str, str], now: datetime
    ) -> Sequence[NewReceipt] | ReceiptRefusal:
        """Return the receipts, or why the request is refused."""
        if not is_signed(self._secret, headers, body, now.timestamp()):
            return ReceiptRefusal.SIGNATURE
        try:
            receipts = _decode(body).receipts
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            return ReceiptRefusal.BODY
        if len(receipts) > MAX_RECEIPTS:
            return ReceiptRefusal.TOO_MANY
        read = [_read(each) for each in receipts]
        found = [each for each in read if each is not None]
        return found if len(found) == len(read) else ReceiptRefusal.BODY


def signed_receipts(name: str, settings: SignedReceiptSettings) -> ReceiptVerifier | None:
    """Return the verifier of a provider, None without a secret. Raises ConfigError."""
    if not settings.receipts_secret:
        return None
    try:
        return SignedReceiptVerifier(secret_bytes(settings.receipts_secret))
    except ValueError as error:
        raise ConfigError(
            f"expected {SECRET_EXPECTED}", key=f"providers.{name}.receipts_secret"
        ) from error


def _read(receipt: SignedReceipt) -> NewReceipt | None:
    """Return a receipt whose texts can be stored; None if its reference or time cannot be used."""
    reference = printable(receipt.reference, MAX_REFERENCE_LENGTH)
    if not reference or receipt.at.year not in _YEARS:
        return None
    return NewReceipt(
        key=_key(receipt),
        event=receipt.event,
        reference=reference,
        provider_at=receipt.at.astimezone(UTC),
        recipient=printable(receipt.recipient or "", MAX_RECIPIENT_LENGTH) or None,
        reason=receipt.reason,
        code=printable(receipt.code, MAX_CODE_LENGTH),
        detail=printable(receipt.detail, MAX_DETAIL_LENGTH),
    )


def _key(receipt: SignedReceipt) -> UUID:
    """Return 128 bits of a hash of the id, or of the whole receipt."""
    named = receipt.id
    raw = msgspec.json.encode(receipt if named is None else ("id", named))
    return digest(raw)
