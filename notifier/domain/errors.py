"""The exceptions of Notifier. Expected results are values; exceptions are for everything else.

NotifierError
├── ConfigError                a setting is wrong; the process exits with code 2
├── DomainError                the caller's request cannot be fulfilled (a 4xx response)
│   ├── InvalidNotification    fields of a request are invalid; nothing was stored
│   ├── NotFound               no notification has this id
│   ├── IdempotencyKeyReused   the key belongs to a submit with another body
│   └── IdempotencyKeyInFlight another submit with the key is still being stored
└── InfrastructureError        a server is unavailable; the call may succeed later
    ├── StoreError             the two that follow: what every loop survives
    │   ├── StoreUnavailable   Postgres did not answer: whether it did the work is unknown
    │   │   ├── StoreConflict  Postgres undid the work (deadlock, serialization): safe to repeat
    │   │   └── StoreRefused   Postgres refuses this role or lacks a table: an operator must act
    │   └── StoreRejected      Postgres rejected the data: repeating cannot succeed
    ├── BrokerUnavailable      RabbitMQ did not answer, or refuses publishes
    ├── Overloaded             this process or the deployment has reached a limit
    │   └── RendererUnavailable the renderer of templates is busy or does not run
    └── FeatureUnavailable     a worker of an earlier version cannot send this yet
"""

from __future__ import annotations

from collections.abc import Sequence


class NotifierError(Exception):
    """The root of all exceptions that this package raises."""


class ConfigError(NotifierError):
    """A setting is wrong; `key` names it."""

    def __init__(self, message: str, *, key: str | None = None) -> None:
        super().__init__(message)
        self.key = key


class DomainError(NotifierError):
    """The caller's request cannot be fulfilled."""


class InvalidNotification(DomainError):
    """A field of a request is invalid; nothing was stored.

    `field` is a dotted path into the body (`content.subject`), `$` for the whole body, or `?limit`
    for a parameter. `expected` describes a valid value; of an unknown field it is the name that
    was probably meant. `others` are the other invalid fields of the same request.
    """

    def __init__(
        self,
        field: str,
        expected: str,
        *,
        detail: str | None = None,
        others: Sequence[InvalidNotification] = (),
    ) -> None:
        super().__init__(f"{field}: {detail or f'expected {expected}'}")
        self.field = field
        self.expected = expected
        self.detail = detail
        self.others = tuple(others)

    @classmethod
    def of(cls, faults: Sequence[InvalidNotification]) -> InvalidNotification:
        """Returns one exception that names all of these fields; the first leads."""
        first, *others = faults
        return cls(first.field, first.expected, detail=first.detail, others=others)


class NotFound(DomainError):
    """No notification has this id."""


class IdempotencyKeyReused(DomainError):
    """The idempotency key belongs to a submit with another body; nothing was stored."""


class IdempotencyKeyInFlight(DomainError):
    """Another submit with the same idempotency key is still being stored."""


class InfrastructureError(NotifierError):
    """A server that Notifier depends on is unavailable, or refuses the work."""


class StoreError(InfrastructureError):
    """Postgres did not do the work."""


class StoreUnavailable(StoreError):
    """Postgres did not answer; whether it did the work is unknown."""


class StoreConflict(StoreUnavailable):
    """Postgres undid the work (deadlock or serialization failure), so it may be repeated."""


class StoreRefused(StoreUnavailable):
    """Postgres answers, but does not let this process work: rights, tables, TLS, a pooler.

    A running process repeats the work until an operator has acted. At the start of a process it is
    a wrong setting.
    """


class StoreRejected(StoreError):
    """Postgres rejected the data itself (SQLSTATE classes 22, 23, 54)."""


class BrokerUnavailable(InfrastructureError):
    """RabbitMQ did not answer, or refuses publishes."""


class Overloaded(InfrastructureError):
    """The process or the deployment has reached a limit; `retry_after_s` is when to try again."""

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class RendererUnavailable(Overloaded):
    """The renderer of templates is busy with other requests, or does not run."""


class FeatureUnavailable(InfrastructureError):
    """A worker does not understand a feature of a notification; nothing was stored."""

    def __init__(self, feature: str, why: str) -> None:
        super().__init__(f"the feature {feature} cannot be used yet: {why}")
        self.feature = feature
