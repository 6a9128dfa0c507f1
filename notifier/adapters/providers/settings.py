"""The settings that all provider types share. Secrets are plain strings, read from their files."""

from typing import Annotated

import msgspec
from msgspec import Meta

from notifier.domain.breaker import MAX_REFUSALS
from notifier.domain.errors import ConfigError
from notifier.domain.secret_names import is_secret

Count = Annotated[int, Meta(ge=1, le=100_000)]
Seconds = Annotated[float, Meta(gt=0, le=3600)]


class ProviderSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One table `[providers.<name>]`; its repr never shows a secret.

    `rate` is the calls per second that the provider allows to all workers together, None for no
    limit. `max_connections` bounds the connections of one worker. `timeout_s` bounds a send; each
    type says which part of it. After `refusals_in_a_row` different recipients were refused with
    nothing accepted between them, the breaker opens; 0 turns this off.
    """

    rate: Annotated[float, Meta(gt=0, le=1_000_000)] | None = None
    max_connections: Count = 32
    timeout_s: Seconds = 15.0
    refusals_in_a_row: Annotated[int, Meta(ge=0, le=MAX_REFUSALS)] = 20

    @property
    def longest_send_s(self) -> float | None:
        """How long a send may take, if the provider limits it beyond the worker's own limit."""
        return None

    def __repr__(self) -> str:
        """The fields that are no secrets."""
        shown = (name for name in self.__struct_fields__ if not _holds_secret(name))
        values = (f"{name}={getattr(self, name)!r}" for name in shown)
        return f"{type(self).__name__}({', '.join(values)})"


class SignedReceiptSettings(ProviderSettings, frozen=True, kw_only=True):
    """The settings of a type whose receipts are in Notifier's own form.

    `receipts_secret` signs them (docs/receipts.md). Empty: the provider sends none.
    """

    receipts_secret: str = ""


def check_login(key: str, username: str, password: str) -> None:
    """Raises ConfigError for a password without a user: the provider would not log in.

    `key` is that of the provider's table.
    """
    if password and not username:
        raise ConfigError(
            "is not set, so that password has no effect; set it, or remove password",
            key=f"{key}.username",
        )


def _holds_secret(field: str) -> bool:
    """Return whether the field, or an entry of it if it is a table, may hold a secret."""
    return is_secret(field) or is_secret(f"{field}.*")
