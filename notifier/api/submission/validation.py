"""From the bytes of a submit to a notification Postgres can hold, or to the field that is wrong."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
from uuid_utils.compat import uuid7

from notifier.api.http.decoding import decode_body
from notifier.api.requests import Submit
from notifier.api.settings import ApiSettings, ChannelRules
from notifier.api.submission.addresses import check_recipient
from notifier.api.submission.content import check_content, encode_content, encode_metadata
from notifier.domain.errors import InvalidNotification
from notifier.domain.notification import Channel, NewNotification, NotificationId, QueueKey

_SUBMIT: Final = msgspec.json.Decoder(Submit)


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Submits:
    """Reads submits under one set of rules."""

    def __init__(self, settings: ApiSettings, *, now: Callable[[], datetime] = _utc_now) -> None:
        self._settings = settings
        self._now = now
        self._channels = f"one of {', '.join(settings.channels)}"

    def read(self, body: bytes | msgspec.Raw) -> NewNotification:
        """Read one. Raises InvalidNotification, or Refusal if it is no JSON object at all."""
        return self._validated(decode_body(_SUBMIT, body))

    def _validated(self, submit: Submit) -> NewNotification:
        rules = self._rules(submit.channel)
        check_recipient(rules.address, submit.recipient)
        check_content(rules.address, submit.content)
        delay = self._delay(submit.send_at)
        return NewNotification(
            id=NotificationId(uuid7()),
            queue=QueueKey(Channel(submit.channel), submit.priority),
            recipient=submit.recipient,
            content=encode_content(submit.content, most=self._settings.max_content_bytes),
            metadata=encode_metadata(submit.metadata, most=self._settings.max_metadata_bytes),
            delay=delay,
            ttl=self._ttl(submit, delay or timedelta()),
            max_tries=submit.max_tries,
        )

    def _rules(self, channel: str) -> ChannelRules:
        rules = self._settings.channels.get(channel)
        if rules is None:
            raise InvalidNotification("channel", self._channels)
        return rules

    def _delay(self, send_at: datetime | None) -> timedelta | None:
        if send_at is None:
            return None
        delay = send_at - self._now()
        if delay > self._settings.max_delay:
            days = self._settings.max_delay.days
            raise InvalidNotification("send_at", f"an instant at most {days} days ahead")
        return delay if delay > timedelta() else None

    def _ttl(self, submit: Submit, delay: timedelta) -> timedelta:
        most = self._settings.max_ttl
        if submit.ttl is None:
            return min(delay + self._settings.default_ttl[submit.priority], most)
        if submit.ttl > most.total_seconds():
            raise InvalidNotification("ttl", f"at most {most.total_seconds():.0f} seconds")
        ttl = timedelta(seconds=submit.ttl)
        if ttl <= delay:
            raise InvalidNotification("ttl", "more seconds than there are until send_at")
        return ttl
