"""A batch taken apart into its items, unread, so that an item can harm no neighbour.

Its cost is bounded by C code that skips over the items: nothing here looks at them one by one in
Python, and of a longer array than allowed only one item more is made.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from notifier.api.http.decode_errors import explain
from notifier.api.http.json_checks import NESTING
from notifier.api.http.problems import Kind, Refusal
from notifier.api.requests import WHOLE_BODY, Batch
from notifier.api.settings import ApiSettings
from notifier.domain.errors import InvalidNotification

_BATCH: Final = msgspec.json.Decoder(Batch)
_MAX_MENDED: Final = 1024 * 1024
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")


class Splitter:
    """Takes batches of at most `max_batch` apart."""

    def __init__(self, settings: ApiSettings) -> None:
        self._expected = f"1 to {settings.max_batch} notifications"
        self._most = settings.max_batch
        self._items = msgspec.json.Decoder(_row_of(settings.max_batch + 1))

    def split(self, body: bytes) -> Sequence[bytes]:
        """Return 1 to `max_batch` items. Raises InvalidNotification or Refusal for the whole.

        A lone surrogate, NaN and Infinity stop the parser wherever they stand. In a body of up to
        1 MiB they are covered first, and then are their item's own problem.
        """
        try:
            return self._split(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            if len(body) > _MAX_MENDED:
                raise _not_json() from error
        covered = _covered(body)
        try:
            items = self._split(covered)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise _not_json() from error
        return list(_at_the_same_places(items, covered, body))

    def _split(self, body: bytes) -> Sequence[bytes]:
        """Raises DecodeError for what is no JSON; for JSON of another shape as `split` does."""
        prefix = ""
        try:
            array = _BATCH.decode(body).notifications
            prefix = "notifications"
            row = msgspec.structs.astuple(self._items.decode(array))
        except msgspec.ValidationError as error:
            raise explain(str(error), prefix=prefix, known=Batch.__struct_fields__) from error
        except RecursionError as error:
            raise InvalidNotification("notifications", NESTING) from error
        items = [item for item in map(bytes, row) if item]
        if not 1 <= len(items) <= self._most:
            raise InvalidNotification("notifications", self._expected)
        return items


def _row_of(most: int) -> type[msgspec.Struct]:
    """Make a type that decodes the first `most` items of an array and skips the others.

    A list would first make an object of each of millions.
    """
    fields = [(f"item_{i}", msgspec.Raw, msgspec.Raw()) for i in range(most)]
    return msgspec.defstruct("Row", fields, array_like=True)


def _covered(body: bytes) -> bytes:
    """Put harmless JSON of the same length over what stops the parser."""
    numbers = body.replace(b"NaN", b"1e1").replace(b"Infinity", b"10000000")
    return _SURROGATE.sub(rb"\\u0020", numbers)


def _at_the_same_places(items: Sequence[bytes], covered: bytes, body: bytes) -> Iterator[bytes]:
    """Cut from the body as it came. Between two items there are only commas and white space."""
    end = covered.index(b"[")
    for item in items:
        start = covered.index(item, end + 1)
        end = start + len(item) - 1
        yield body[start : end + 1]


def _not_json() -> Refusal:
    detail = (
        "The batch is empty, cut, or not JSON as a whole. An item's lone surrogate, NaN or "
        f"Infinity is that item's own problem in batches of up to {_MAX_MENDED:,} bytes only."
    )
    expected = "a JSON object (RFC 8259) in UTF-8"
    return Refusal(Kind.MALFORMED.problem(detail, field=WHOLE_BODY, expected=expected))
