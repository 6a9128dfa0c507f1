"""A batch of submits of which some have an idempotency key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from notifier.domain.errors import IdempotencyKeyReused
from notifier.ports.acceptor import Replayed, Suppressed
from notifier.ports.store import KeyOwner

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from notifier.domain.idempotency import IdempotencyKey
    from notifier.domain.notification import NewNotification
    from notifier.ports.acceptor import Reply


class KeyedBatch:
    """The items of one statement.

    Submits with the same key may share a batch. Only the first of them is written; the others get
    its answer. They are joined for each statement and not before: if Postgres rejects the first,
    the second is written in another one, as if the first had never been submitted.
    """

    def __init__(self, items: Sequence[NewNotification]) -> None:
        self._items = items
        self.firsts: dict[UUID, NewNotification] = {}
        """The first item of each key."""
        for item in items:
            if item.key is not None:
                self.firsts.setdefault(item.key.digest, item)

    @property
    def written(self) -> list[NewNotification]:
        """The items without a key, and the first of each key."""
        return [
            item for item in self._items if item.key is None or self.firsts[item.key.digest] is item
        ]

    def replies(self, owners: Mapping[UUID, KeyOwner]) -> list[Reply]:
        """Return the reply to each item. `owners` has the keys that were not stored now."""
        return [_reply(item, owners, self.firsts) for item in self._items]


def reply_of(item: NewNotification) -> Reply:
    """Return the reply to an item that is stored."""
    return item.status if item.suppressed is None else Suppressed(item.suppressed)


def _reply(
    item: NewNotification,
    owners: Mapping[UUID, KeyOwner],
    firsts: Mapping[UUID, NewNotification],
) -> Reply:
    if item.key is None:
        return reply_of(item)
    owner = owners.get(item.key.digest) or _owner(firsts[item.key.digest])
    # A key that is this item's own was stored by an earlier write whose answer was lost.
    if owner.id == item.id:
        return reply_of(item)
    return answer_of(owner, item.key)


def answer_of(owner: KeyOwner, key: IdempotencyKey) -> Replayed | IdempotencyKeyReused:
    """Return the answer to a submit with a key that belongs to another submit."""
    if owner.body != key.body:
        return IdempotencyKeyReused()
    return Replayed(owner.id, owner.status, owner.reason)


def _owner(item: NewNotification) -> KeyOwner:
    assert item.key is not None  # noqa: S101 a first of its key has one
    return KeyOwner(item.id, item.key.body, item.status, item.suppressed)
