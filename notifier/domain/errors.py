"""The exceptions of Notifier. Expected results are values; these are the surprises.

NotifierError
├── ConfigError                a setting is wrong; the process exits with 2
├── DomainError                the caller asked for something that cannot be (a 4xx)
│   ├── InvalidNotification    a field of a submit is wrong; nothing was stored
│   └── NotFound               no such notification
└── InfrastructureError        a part we stand on is away; worth repeating
    ├── StoreUnavailable       Postgres did not answer: whether it did the work is unknown
    │   └── StoreConflict      Postgres undid the work (deadlock, serialization): safe to repeat
    ├── StoreRejected          Postgres refused the data itself: repeating cannot help
    ├── BrokerUnavailable      RabbitMQ did not answer, or refuses publishes
    └── Overloaded             this process, or the deployment, holds as much as it may
"""

from __future__ import annotations


class NotifierError(Exception):
    """Root of everything this package raises."""


class ConfigError(NotifierError):
    """A setting is wrong; `key` names it."""

    def __init__(self, message: str, *, key: str | None = None) -> None:
        super().__init__(message)
        self.key = key


class DomainError(NotifierError):
    """The caller asked for something that cannot be."""


class InvalidNotification(DomainError):
    """A field of a submit is wrong; nothing was stored.

    `field` is a dotted path into the body (`content.subject`), `expected` says what would be right.
    """

    def __init__(self, field: str, expected: str) -> None:
        super().__init__(f"{field}: expected {expected}")
        self.field = field
        self.expected = expected


class NotFound(DomainError):
    """No notification has this id."""


class InfrastructureError(NotifierError):
    """A part we stand on is away."""


class StoreUnavailable(InfrastructureError):
    """Postgres did not answer; whether it did the work is unknown."""


class StoreConflict(StoreUnavailable):
    """Postgres undid the work (deadlock or serialization failure), so it may be repeated."""


class StoreRejected(InfrastructureError):
    """Postgres refused the data itself (SQLSTATE classes 22, 23, 54)."""


class BrokerUnavailable(InfrastructureError):
    """RabbitMQ did not answer, or refuses publishes."""


class Overloaded(InfrastructureError):
    """Process or deployment holds as much as it may; `retry_after_s` says when to come back."""

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
