"""Turns the bytes of a submit into a notification that Postgres can store."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
from uuid_utils.compat import uuid7

from notifier.api.http.decoding import decode_body
from notifier.api.requests import Submit
from notifier.api.rules import ApiRules, ChannelRules
from notifier.api.submission.addresses import checked_recipient
from notifier.api.submission.content import check_content, encode_content, encode_metadata
from notifier.domain.errors import InvalidNotification
from notifier.domain.notification import Channel, NewNotification, NotificationId, QueueKey

_SUBMIT: Final = msgspec.json.Decoder(Submit)


def _utc_now() -> datetime:
    return datetime.now(UTC)


class SubmitValidator:
    """Validates submits against one set of rules."""

    def __init__(self, rules: ApiRules, *, now: Callable[[], datetime] = _utc_now) -> None:
        self._rules = rules
        self._now = now
        self._expected_channel = f"one of {', '.join(rules.channels)}"

    def validate(self, body: bytes | msgspec.Raw) -> NewNotification:
        """Returns the notification, with a new id.

        Raises InvalidNotification for a wrong field, RequestRefused for a body that is not JSON.
        """
        return self._validated(decode_body(_SUBMIT, body))

    def _validated(self, submit: Submit) -> NewNotification:
        channel = self._channel_rules(submit.channel)
        recipient = checked_recipient(channel.address, submit.recipient)
        check_content(channel.address, submit.content)
        delay = self._delay(submit.send_at)
        return NewNotification(
            id=NotificationId(uuid7()),
            queue=QueueKey(Channel(submit.channel), submit.priority),
            recipient=recipient,
            content=encode_content(submit.content, max_bytes=self._rules.max_content_bytes),
            metadata=encode_metadata(submit.metadata, max_bytes=self._rules.max_metadata_bytes),
            delay=delay,
            ttl=self._ttl(submit, delay or timedelta()),
            max_tries=_whole(submit.max_tries),
        )

    def _channel_rules(self, channel: str) -> ChannelRules:
        rules = self._rules.channels.get(channel)
        if rules is None:
            raise InvalidNotification("channel", self._expected_channel)
        return rules

    def _delay(self, send_at: datetime | None) -> timedelta | None:
        """Returns the time until `send_at`; None means now."""
        if send_at is None:
            return None
        delay = send_at - self._now()
        if delay > self._rules.max_delay:
            days = self._rules.max_delay.days
            raise InvalidNotification("send_at", f"an instant at most {days} days ahead")
        return delay if delay > timedelta() else None

    def _ttl(self, submit: Submit, delay: timedelta) -> timedelta:
        """Returns the time from acceptance to expiry. Only a default ttl starts at `send_at`."""
        max_ttl = self._rules.max_ttl
        if submit.ttl is None:
            return min(delay + self._rules.default_ttl[submit.priority], max_ttl)
        if submit.ttl > max_ttl.total_seconds():
            raise InvalidNotification("ttl", f"at most {max_ttl.total_seconds():.0f} seconds")
        ttl = timedelta(seconds=submit.ttl)
        if ttl <= delay:
            raise InvalidNotification("ttl", "more seconds than there are until send_at")
        return ttl


def _whole(max_tries: float | None) -> int | None:
    """Returns the number as an integer. JSON has one type of number: 8.0 is 8."""
    if max_tries is None:
        return None
    if not max_tries.is_integer():
        raise InvalidNotification("max_tries", "an integer from 1 to 100")
    return int(max_tries)
