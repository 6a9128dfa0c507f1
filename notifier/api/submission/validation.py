"""Turns the bytes of a submit into a notification that Postgres can store."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final, NamedTuple

import msgspec
from uuid_utils.compat import uuid7

from notifier.api.http.decode_errors import missing_field
from notifier.api.http.decoding import BodyDecoder
from notifier.api.http.field_by_field import DecodedFields
from notifier.api.http.tenant_names import checked_tenant
from notifier.api.requests import (
    MAX_COLLAPSE_KEY_LENGTH,
    MAX_TAG_LENGTH,
    PRINTABLE_ASCII,
    TAG,
    Content,
    Submit,
)
from notifier.api.rules import AddressKind, ApiRules, ChannelRules
from notifier.api.submission.addresses import check_prefix
from notifier.api.submission.content import check_content, encode_content, encode_metadata
from notifier.api.submission.email_fields import (
    RECIPIENT_NAME,
    EmailParts,
    checked_address,
    sender_parts,
)
from notifier.api.submission.fallback_field import (
    NEEDED,
    check_after,
    check_unless,
    new_fallback,
    of_fallback,
    second_submit,
)
from notifier.api.submission.idempotency import NO_KEYS, RequestKeys, checked_key
from notifier.api.submission.submit_blobs import files_fault
from notifier.api.submission.template_use import (
    checked_locale,
    checked_ref,
    checked_variables,
    content_beside_template,
)
from notifier.api.templating.filling import Unfilled
from notifier.domain.blobs import BlobUse
from notifier.domain.credentials import Mode
from notifier.domain.errors import InvalidNotification
from notifier.domain.features import NO_FEATURES, features_of
from notifier.domain.holds import TIME_ZONE
from notifier.domain.lookups import FILE, Lookup, LookupKind, metadata_lookups
from notifier.domain.mailbox import NamedAddress
from notifier.domain.notification import (
    Channel,
    NewFallback,
    NewNotification,
    NotificationId,
    QueueKey,
)
from notifier.domain.recipients import recipient_identity
from notifier.domain.senders import ANY_SENDER, Senders
from notifier.domain.suppressions import TOPIC_EXPECTED, is_topic
from notifier.domain.tenants import DEFAULT_TENANT, KnownTenants, TenantId
from notifier.domain.text_segments import count_segments
from notifier.domain.time_zones import TIME_ZONE_EXPECTED, is_time_zone

_SUBMIT: Final = BodyDecoder(Submit)
_TAG: Final = re.compile(TAG)
_NO_PUBLIC_URL: Final = (
    "no topic while the setting api.public_url is empty: the link to unsubscribe needs it"
)
TAG_EXPECTED: Final = f"1 to {MAX_TAG_LENGTH} of A-Z, a-z, 0-9 and ._:/-"
_SHORTEST_TTL: Final = timedelta(milliseconds=1)
_NOTHING: Final = {"channel": "", "recipient": ""}
"""Stands for required fields that are wrong."""


_COLLAPSE_KEY: Final = re.compile(PRINTABLE_ASCII)
"""The decoder has checked the length."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Sender(NamedTuple):
    """Who submits. `tenant` None: the deployment, for the tenant that each submit names.

    `tenants` None: nobody knows them, and every `from` is allowed.
    """

    tenant: TenantId | None = None
    mode: Mode = Mode.LIVE
    tenants: KnownTenants = None


DEPLOYMENT: Final = Sender()


class SubmitValidator:
    """Validates submits against one set of rules."""

    def __init__(self, rules: ApiRules, *, now: Callable[[], datetime] = _utc_now) -> None:
        self._rules = rules
        self._now = now
        self._channels = rules.submit_channels
        self._expected_channel = f"one of {', '.join(self._channels)}"
        self._checks = (
            ({"channel"}, self._channel),
            ({"channel", "recipient"}, self._recipient),
            ({"template"}, checked_ref),
            ({"channel", "content", "template"}, self._content),
            ({"metadata"}, self._metadata),
            ({"send_at"}, self._delay),
            ({"send_at", "priority", "ttl_s", "expires_at"}, self._check_ttl),
            ({"time_zone"}, _time_zone),
            ({"max_tries"}, _max_tries),
            ({"tag"}, _tag),
            ({"channel", "topic"}, self._topic),
            ({"collapse_key"}, _collapse_key),
            ({"idempotency_key"}, checked_key),
            ({"template", "variables"}, checked_variables),
            ({"template", "locale"}, checked_locale),
        )

    def validate(
        self,
        body: bytes | msgspec.Raw,
        sender: Sender = DEPLOYMENT,
        keys: RequestKeys = NO_KEYS,
        number: int | None = None,
    ) -> NewNotification | Unfilled:
        """Returns the notification, with a new id, and with its key of `keys`.

        That of a test key goes to the channel for tests. One with a template has no content yet.
        `number` is its place in a batch, where files must be blobs. Raises InvalidNotification with
        all wrong fields, RequestRefused for a body that is not JSON.
        """
        submit = _SUBMIT.decode_or_find_faults(body)
        if isinstance(submit, DecodedFields):
            right = Submit(**{**_NOTHING, **submit.values})
            raise InvalidNotification.of(self._faults(right, sender, submit.faults))
        try:
            new, parts = self._validated(submit, body, sender, keys, number)
            ref = checked_ref(submit)
            variables, locale = checked_variables(submit), checked_locale(submit)
            if ref is None:
                return new
            tenant = None if sender.tenants is None else sender.tenants.get(new.tenant)
            if locale is None and tenant is not None:
                locale = tenant.locale
            return Unfilled(
                new=new,
                channel=submit.channel,
                kind=self._channel(submit).address,
                ref=ref,
                locale=locale,
                variables=variables,
                content=submit.content or Content(),
                others=parts,
            )
        except InvalidNotification as error:
            raise InvalidNotification.of(self._faults(submit, sender) or [error]) from error

    @staticmethod
    def content_of(body: bytes) -> Content:
        """Returns the content of a valid submit without a template."""
        return _SUBMIT.decode(body).content or Content()

    def _validated(
        self,
        submit: Submit,
        body: bytes | msgspec.Raw,
        sender: Sender,
        keys: RequestKeys,
        number: int | None,
    ) -> tuple[NewNotification, Mapping[str, object]]:
        """Returns the notification, and the parts of its content beside its text."""
        delay, mailbox = self._delay(submit), self._mailbox(submit)
        parts, blobs = self._parts(submit, sender, mailbox.name, may_inline=number is None)
        is_test = sender.mode is Mode.TEST
        channel = self._rules.test_channel if is_test else submit.channel
        metadata, tag, topic = self._metadata(submit), _tag(submit), self._topic(submit)
        tenant = _tenant(submit, sender)
        new = NewNotification(
            id=NotificationId(uuid7()),
            recipient=mailbox.address,
            content=self._encoded(submit, parts),
            queue=QueueKey(Channel(channel), submit.priority),
            metadata=metadata,
            delay=delay,
            ttl=self._ttl(submit, delay or timedelta()),
            max_tries=_max_tries(submit),
            segments=self._segments(submit),
            features=NO_FEATURES if is_test else self._features(submit, parts),
            tenant=tenant,
            test_channel=submit.channel if is_test else "",
            blobs=blobs,
            tag=tag,
            topic=topic,
            has_copies="cc" in parts or "bcc" in parts,
            lookups=self._lookups(mailbox.address, tag, metadata, blobs),
            collapse_key=_collapse_key(submit),
            fallback=self._fallback(submit, body, sender),
            key=keys.key_of(submit, body, number, blobs, tenant=tenant),
        )
        return new, parts

    def _faults(
        self, submit: Submit, sender: Sender, found: Sequence[InvalidNotification] = ()
    ) -> Sequence[InvalidNotification]:
        """Returns what is wrong with every field: what was `found`, and what the checks find.

        A check is left out if a field that it needs is wrong.
        """
        faults = list(found)
        wrong = {fault.field.partition(".")[0] for fault in faults}
        of_sender = (
            ({"tenant"}, partial(_tenant, sender=sender)),
            (
                {"channel", "content", "template", "tenant", "time_zone"},
                partial(self._content, sender=sender),
            ),
            (NEEDED, partial(self._check_fallback, sender=sender)),
        )
        for fields, check in (*self._checks, *of_sender):
            if wrong.isdisjoint(fields):
                try:
                    check(submit)
                except InvalidNotification as error:
                    faults += [error, *error.others]
                    wrong.add(error.field.partition(".")[0])
        return faults

    def _fallback(
        self, submit: Submit, body: bytes | msgspec.Raw, sender: Sender
    ) -> NewFallback | None:
        if submit.fallback is None:
            return None
        self._check_fallback(submit, sender)
        ttl = None
        if submit.expires_at is not None:
            delay = self._delay(submit) or timedelta()
            ttl = max(self._ttl(submit, delay) - delay, _SHORTEST_TTL)
        return new_fallback(body, submit.fallback, ttl)

    def _check_fallback(self, submit: Submit, sender: Sender) -> None:
        """Checks the second submit as any other. What it takes over is checked in the first one."""
        fallback = submit.fallback
        if fallback is None:
            return
        check_after(fallback, self._rules.max_ttl - (self._delay(submit) or timedelta()))
        check_unless(fallback, has_receipts=self._has_receipts(submit, sender))
        second = second_submit(submit, fallback)
        if faults := self._faults(second, sender):
            raise InvalidNotification.of(list(of_fallback(InvalidNotification.of(faults))))

    def _has_receipts(self, submit: Submit, sender: Sender) -> bool:
        """Whether receipts come for this submit, and would for that of a live key."""
        names = [submit.channel]
        if sender.mode is Mode.TEST:
            names.append(self._rules.test_channel)
        channels = [self._rules.channels.get(name) for name in names]
        return all(channel is None or channel.has_receipts for channel in channels)

    def _channel(self, submit: Submit) -> ChannelRules:
        rules = self._channels.get(submit.channel)
        if rules is None:
            raise InvalidNotification("channel", self._expected_channel)
        return rules

    def _recipient(self, submit: Submit) -> str:
        return self._mailbox(submit).address

    def _mailbox(self, submit: Submit) -> NamedAddress:
        kind = self._channel(submit).address
        mailbox = checked_address(kind, submit.recipient)
        if kind is AddressKind.PHONE:
            check_prefix(mailbox.address, self._rules.sms_prefixes)
        return mailbox

    def _content(self, submit: Submit, sender: Sender = DEPLOYMENT) -> bytes:
        return self._encoded(submit, self._parts(submit, sender, may_inline=True).parts)

    def _parts(
        self, submit: Submit, sender: Sender, name: str = "", *, may_inline: bool
    ) -> EmailParts:
        """Returns the parts of the content beside its text; `name` is that of the recipient."""
        kind, content, rules = self._channel(submit).address, submit.content, self._rules
        if submit.template is not None:
            content_beside_template(content)
        elif content is None:
            raise missing_field("content")
        else:
            check_content(kind, content)
        parts, blobs = sender_parts(
            kind,
            Content() if content is None else content,
            rules.allowed_headers,
            _senders(submit, sender),
            may_inline=may_inline,
        )
        inline = [use.data for use in blobs if use.data is not None]
        if fault := files_fault(sum(map(len, inline)), rules.max_attachment_bytes):
            raise fault
        if name:
            parts = {**parts, RECIPIENT_NAME: name}
        if zone := _time_zone(submit):
            parts = {**parts, TIME_ZONE: zone}
        return EmailParts(parts, blobs)

    def _encoded(self, submit: Submit, parts: Mapping[str, object]) -> bytes:
        """Returns the content as it is stored; empty for a template, which fills it later."""
        if submit.content is None or submit.template is not None:
            return b""
        return encode_content(submit.content, max_bytes=self._rules.max_content_bytes, others=parts)

    def _segments(self, submit: Submit) -> int | None:
        content = submit.content
        if content is None or self._channel(submit).address is not AddressKind.PHONE:
            return None
        return count_segments(content.body or "")

    def _features(self, submit: Submit, parts: Mapping[str, object]) -> frozenset[str]:
        has_link = submit.topic is not None and (
            self._channel(submit).address is AddressKind.EMAIL  # see delivery/unsubscribe_links.py
        )
        needed = (*parts, "headers") if has_link else tuple(parts)
        return features_of(needed) if needed else NO_FEATURES

    def _topic(self, submit: Submit) -> str | None:
        if submit.topic is None:
            return None
        if not is_topic(submit.topic):
            raise InvalidNotification("topic", TOPIC_EXPECTED)
        is_email = self._channel(submit).address is AddressKind.EMAIL
        if is_email and not self._rules.public_url:
            raise InvalidNotification("topic", _NO_PUBLIC_URL)
        return submit.topic

    def _lookups(
        self, recipient: str, tag: str | None, metadata: bytes, blobs: Sequence[BlobUse]
    ) -> tuple[Lookup, ...]:
        rules = self._rules.lookups
        files = sorted({use.id for use in blobs})
        lookups = tuple(Lookup(FILE, id_) for id_ in files)
        lookups = (*metadata_lookups(metadata, rules.metadata_keys), *lookups)
        if tag is not None and rules.tag:
            lookups = (Lookup(LookupKind.TAG, tag), *lookups)
        if rules.recipient:
            lookups = (Lookup(LookupKind.RECIPIENT, recipient_identity(recipient)), *lookups)
        return lookups

    def _metadata(self, submit: Submit) -> bytes:
        return encode_metadata(submit.metadata, max_bytes=self._rules.max_metadata_bytes)

    def _delay(self, submit: Submit) -> timedelta | None:
        """Returns the time until `send_at`; None means now."""
        if submit.send_at is None:
            return None
        delay = submit.send_at - self._now()
        if delay > self._rules.max_delay:
            days = self._rules.max_delay.days
            raise InvalidNotification("send_at", f"an instant at most {days} days ahead")
        return delay if delay > timedelta() else None

    def _ttl(self, submit: Submit, delay: timedelta) -> timedelta:
        """Returns the time from acceptance to expiry. It starts at `send_at`."""
        longest = self._rules.max_ttl - delay
        if submit.expires_at is not None:
            return self._time_to(submit.expires_at, submit)
        if submit.ttl_s is None:
            return delay + min(self._rules.default_ttl[submit.priority], longest)
        if submit.ttl_s > longest.total_seconds():
            raise InvalidNotification("ttl_s", f"at most {int(longest.total_seconds())} seconds")
        return delay + timedelta(seconds=submit.ttl_s)

    def _time_to(self, expires_at: datetime, submit: Submit) -> timedelta:
        """Returns the time from acceptance to an expiry that is given as an instant."""
        if submit.ttl_s is not None:
            raise InvalidNotification("expires_at", "either ttl_s or expires_at")
        if submit.send_at is not None and expires_at <= submit.send_at:
            raise InvalidNotification("expires_at", "an instant after send_at")
        ttl = expires_at - self._now()
        if ttl > self._rules.max_ttl:
            days = self._rules.max_ttl.days
            raise InvalidNotification("expires_at", f"an instant at most {days} days ahead")
        # One in the past is accepted, so that a repeat with a key gets the first answer.
        return max(ttl, _SHORTEST_TTL)

    def _check_ttl(self, submit: Submit) -> None:
        self._ttl(submit, self._delay(submit) or timedelta())


def _tenant(submit: Submit, sender: Sender) -> TenantId:
    if submit.tenant is None:
        return DEFAULT_TENANT if sender.tenant is None else sender.tenant
    if sender.tenant is not None:
        raise InvalidNotification("tenant", "no tenant: the key belongs to one")
    return checked_tenant(submit.tenant)


def _senders(submit: Submit, sender: Sender) -> Senders:
    """Returns what `from` may be. That of an unknown tenant does not matter: it is refused."""
    if sender.tenants is None:
        return ANY_SENDER
    tenant = sender.tenants.get(_tenant(submit, sender))
    return ANY_SENDER if tenant is None else tenant.senders


def _time_zone(submit: Submit) -> str | None:
    if submit.time_zone is not None and not is_time_zone(submit.time_zone):
        raise InvalidNotification("time_zone", TIME_ZONE_EXPECTED)
    return submit.time_zone


def is_tag(text: str) -> bool:
    """Whether this may be the tag of a notification."""
    return len(text) <= MAX_TAG_LENGTH and _TAG.fullmatch(text) is not None


def _tag(submit: Submit) -> str | None:
    if submit.tag is not None and not is_tag(submit.tag):
        raise InvalidNotification("tag", TAG_EXPECTED)
    return submit.tag


def _collapse_key(submit: Submit) -> str | None:
    key = submit.collapse_key
    if key is not None and not _COLLAPSE_KEY.fullmatch(key):
        expected = f"1 to {MAX_COLLAPSE_KEY_LENGTH} printable ASCII characters"
        raise InvalidNotification("collapse_key", expected)
    return key


def _max_tries(submit: Submit) -> int | None:
    """Returns the number as an integer. JSON has one type of number: 8.0 is 8."""
    max_tries = submit.max_tries
    if max_tries is None:
        return None
    if not max_tries.is_integer():
        raise InvalidNotification("max_tries", "an integer from 1 to 100")
    return int(max_tries)
