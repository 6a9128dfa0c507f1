"""The legal status changes of a notification, for tests to check against; see docs/design.md."""

from __future__ import annotations

from typing import Final

from notifier.domain.notification import Status

TRANSITIONS: Final[dict[Status, frozenset[Status]]] = {
    Status.SCHEDULED: frozenset(
        {
            Status.QUEUED,
            Status.EXPIRED,
            Status.CANCELLED,
            Status.SUPPRESSED,
            Status.SENT,  # a late Accepted for the present claim of a parked row
        }
    ),
    Status.QUEUED: frozenset(
        {
            Status.SENDING,
            Status.SCHEDULED,  # parked: a pause
            Status.FAILED,  # Postgres rejects the claim
            Status.EXPIRED,
            Status.CANCELLED,
            Status.SUPPRESSED,
            Status.SENT,  # a late Accepted for the present claim of the row
        }
    ),
    Status.SENDING: frozenset(
        {
            Status.SENT,
            Status.RETRYING,
            Status.QUEUED,
            Status.SCHEDULED,  # parked: quiet hours
            Status.FAILED,
            Status.EXPIRED,
        }
    ),
    Status.RETRYING: frozenset(
        {
            Status.QUEUED,
            Status.EXPIRED,
            Status.CANCELLED,
            Status.SUPPRESSED,
            Status.SENT,
        }
    ),
    Status.SENT: frozenset({Status.DELIVERED, Status.UNDELIVERED}),
    Status.FAILED: frozenset({Status.QUEUED, Status.SENT}),
    Status.EXPIRED: frozenset({Status.QUEUED, Status.SENT}),
    Status.CANCELLED: frozenset({Status.QUEUED, Status.SENT}),
    Status.SUPPRESSED: frozenset({Status.QUEUED, Status.SENT}),
    # A receipt with a greater time of the provider; a person's retry.
    Status.DELIVERED: frozenset({Status.UNDELIVERED}),
    Status.UNDELIVERED: frozenset({Status.QUEUED, Status.DELIVERED}),
    Status.LOST: frozenset({Status.SENT}),  # a late Accepted
}


def is_legal(before: Status, after: Status) -> bool:
    """Return whether a notification may change from one status to the other."""
    return after in TRANSITIONS[before]
