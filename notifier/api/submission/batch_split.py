"""Splits a batch into its items without decoding them, so that a bad item affects no other.

C code skips over the items, which bounds the cost: no Python code visits them one by one, and of
an array that is too long only one item more than allowed becomes an object.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from notifier.api.http.decode_errors import invalid_field
from notifier.api.http.decoding import JSON_EXPECTED
from notifier.api.http.json_checks import NESTING_EXPECTED
from notifier.api.http.problem_types import ProblemType
from notifier.api.http.problems import RequestRefused
from notifier.api.http.suggestions import field_paths
from notifier.api.requests import WHOLE_BODY, Batch
from notifier.api.rules import ApiRules
from notifier.domain.errors import InvalidNotification

_BATCH: Final = msgspec.json.Decoder(Batch)
_MAX_MASKED_BYTES: Final = 1024 * 1024
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")


class BatchSplitter:
    """Splits batches of at most `rules.max_batch` items."""

    def __init__(self, rules: ApiRules) -> None:
        self._expected = f"1 to {rules.max_batch} notifications"
        self._max_items = rules.max_batch
        self._items = msgspec.json.Decoder(_row_type(rules.max_batch + 1))

    def split(self, body: bytes) -> Sequence[bytes]:
        """Returns the 1 to `max_batch` items with the bytes that they have in the body.

        Raises InvalidNotification or RequestRefused for a body that is no batch. A lone surrogate,
        NaN or Infinity makes the parser reject the whole body. In a body of up to 1 MiB they are
        masked while it is split, so that only their own item is refused later.
        """
        try:
            return self._split(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            if len(body) > _MAX_MASKED_BYTES:
                raise _malformed() from error
        masked = _masked(body)
        try:
            items = self._split(masked)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise _malformed() from error
        return list(_unmasked(items, masked, body))

    def _split(self, body: bytes) -> Sequence[bytes]:
        """As `split`, but raises DecodeError for a body that is not JSON."""
        prefix = ""
        try:
            array = _BATCH.decode(body).notifications
            prefix = "notifications"
            row = msgspec.structs.astuple(self._items.decode(array))
        except msgspec.ValidationError as error:
            raise invalid_field(str(error), prefix=prefix, paths=field_paths(Batch)) from error
        except RecursionError as error:
            raise InvalidNotification("notifications", NESTING_EXPECTED) from error
        items = [item for item in map(bytes, row) if item]
        if not 1 <= len(items) <= self._max_items:
            raise InvalidNotification("notifications", self._expected)
        return items


def _row_type(max_items: int) -> type[msgspec.Struct]:
    """Makes a type that decodes the first `max_items` items of an array and skips the others."""
    # Decoding into a list would first make an object per item, of which there may be millions.
    fields = [(f"item_{i}", msgspec.Raw, msgspec.Raw()) for i in range(max_items)]
    return msgspec.defstruct("Row", fields, array_like=True)


def _masked(body: bytes) -> bytes:
    """Replaces every token that the parser rejects by valid JSON of the same length."""
    numbers = body.replace(b"NaN", b"1e1").replace(b"Infinity", b"10000000")
    return _SURROGATE.sub(rb"\\u0020", numbers)


def _unmasked(items: Sequence[bytes], masked: bytes, body: bytes) -> Iterator[bytes]:
    """Yields the bytes of the original body at the places of the masked items."""
    # Between two items there are only commas and white space, so `index` finds the item itself.
    end = masked.index(b"[")
    for item in items:
        start = masked.index(item, end + 1)
        end = start + len(item) - 1
        yield body[start : end + 1]


def _malformed() -> RequestRefused:
    detail = (
        "The batch as a whole is empty, cut off, or not JSON. In a batch of up to "
        f"{_MAX_MASKED_BYTES:,} bytes a lone surrogate, NaN or Infinity affects its item only."
    )
    return RequestRefused(
        ProblemType.MALFORMED_JSON.problem(detail, field=WHOLE_BODY, expected=JSON_EXPECTED)
    )
