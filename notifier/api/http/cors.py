"""Which pages of other origins may call a route, and what a browser is told about it.

Origins are compared exactly. No answer allows credentials: a browser sends no cookie that another
origin could use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

MAX_AGE_S: Final = 600
"""How long a browser may keep the answer to a preflight request."""
_ALLOWED_HEADERS: Final = b"authorization, content-type, last-event-id, request-id"
_EXPOSED_HEADERS: Final = b"request-id, retry-after"
VARY: Final = (b"vary", b"Origin")


class CrossOrigins:
    """The origins whose pages may call the routes of inboxes."""

    def __init__(self, origins: Collection[str]) -> None:
        self._origins = frozenset(origins)

    def allows(self, origin: str) -> bool:
        """Whether pages of this origin may call."""
        return origin in self._origins

    def headers(self, origin: str) -> Sequence[tuple[bytes, bytes]]:
        """Return the headers of an answer to an allowed origin."""
        return (
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"access-control-expose-headers", _EXPOSED_HEADERS),
            VARY,
        )

    def preflight_headers(
        self, origin: str, methods: Collection[str]
    ) -> Sequence[tuple[bytes, bytes]]:
        """Return the headers of the answer to a preflight request; only Vary if it is refused."""
        if not self.allows(origin):
            return (VARY,)
        return (
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"access-control-allow-methods", ", ".join(sorted(methods)).encode()),
            (b"access-control-allow-headers", _ALLOWED_HEADERS),
            (b"access-control-max-age", b"%d" % MAX_AGE_S),
            VARY,
        )
