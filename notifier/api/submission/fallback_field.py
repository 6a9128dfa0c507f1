"""The field `fallback` of a submit: the second submit that it stands for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any, Final

import msgspec

from notifier.api.requests import Fallback, Submit
from notifier.api.submission.content import is_given
from notifier.api.submission.idempotency import canonical_json
from notifier.api.submission.stored_fields import fields_of
from notifier.domain.errors import InvalidNotification
from notifier.domain.notification import NewFallback, Unless

FALLBACK: Final = "fallback"
_AFTER: Final = f"{FALLBACK}.after_s"
_UNLESS: Final = f"{FALLBACK}.unless"
_TEMPLATE: Final = "template"
_OWN: Final = frozenset({"channel", "recipient", "content", _TEMPLATE, "variables", "locale"})
"""What a fallback says itself. It takes over variables and locale if it has a template."""
_WITH_TEMPLATE: Final[Sequence[str]] = ("variables", "locale")
_SHARED: Final[Sequence[str]] = (
    "priority",
    "ttl_s",
    "time_zone",
    "max_tries",
    "tag",
    "topic",
    "metadata",
)
"""What a second submit has from the first one."""
NEEDED: Final = frozenset({FALLBACK, "send_at", "tenant", *_SHARED, *_WITH_TEMPLATE})
"""The fields of a submit that must be right before its fallback is checked."""
_UNCHECKED: Final = ("content.attachments", "content.mime", _TEMPLATE)
"""What only the store can check."""
_MEMBERS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_NULL: Final = b"null"


def second_submit(submit: Submit, fallback: Fallback) -> Submit:
    """Returns the second submit, whose own fields can then be checked as those of any other."""
    has_template = fallback.template is not None
    variables = fallback.variables
    if has_template and not is_given(variables):
        variables = submit.variables
    return msgspec.structs.replace(
        submit,
        channel=fallback.channel,
        recipient=fallback.recipient,
        content=fallback.content,
        template=fallback.template,
        variables=variables,
        locale=fallback.locale or (submit.locale if has_template else None),
        send_at=None,
        expires_at=None,
        collapse_key=None,
        idempotency_key=None,
        fallback=None,
    )


def new_fallback(
    body: bytes | msgspec.Raw, fallback: Fallback, ttl: timedelta | None
) -> NewFallback:
    """Returns the fallback of a valid submit with this body.

    `ttl` is that of the second submit if the first one has an `expires_at`, else None.
    """
    members = _MEMBERS.decode(body)
    own = _MEMBERS.decode(members[FALLBACK])
    taken = {name: members[name] for name in _SHARED if name in members}
    if ttl is not None:
        taken["ttl_s"] = msgspec.Raw(msgspec.json.encode(ttl.total_seconds()))
    if fallback.template is not None:
        taken |= {name: members[name] for name in _WITH_TEMPLATE if name in members}
    taken |= {name: own[name] for name in _OWN if bytes(own.get(name, _NULL)) != _NULL}
    document = canonical_json(msgspec.json.encode(taken))
    needs = fields_of(msgspec.json.decode(document))
    if fallback.unless is not Unless.SENT:
        needs |= {_UNLESS}
    return NewFallback(
        after=timedelta(seconds=fallback.after_s),
        channel=fallback.channel,
        submit=document,
        needs=needs,
        unless=fallback.unless,
    )


def needs_store(fallback: NewFallback) -> bool:
    """Whether the store is needed to check a fallback: it has files or a template."""
    return any(name in fallback.needs for name in _UNCHECKED)


def with_version(fallback: NewFallback, template: str) -> NewFallback:
    """Returns a fallback that names this version of its template, such as `login@3`."""
    document: dict[str, Any] = msgspec.json.decode(fallback.submit)
    document[_TEMPLATE] = template
    submit = msgspec.json.encode(document, order="sorted")
    return msgspec.structs.replace(fallback, submit=submit)


def of_fallback(error: InvalidNotification) -> Iterator[InvalidNotification]:
    """Yields the faults of a second submit as those of the one that it stands in."""
    for fault in (error, *error.others):
        is_own = fault.field.partition(".")[0] in _OWN
        field = f"{FALLBACK}.{fault.field}" if is_own else fault.field
        yield InvalidNotification(field, fault.expected, detail=fault.detail)


def check_after(fallback: Fallback, longest: timedelta) -> None:
    """Raises InvalidNotification if the first one may not be stored any more by then."""
    if fallback.after_s > longest.total_seconds():
        raise InvalidNotification(_AFTER, f"at most {int(longest.total_seconds())} seconds")


def check_unless(fallback: Fallback, *, has_receipts: bool) -> None:
    """Raises InvalidNotification if no receipt will ever say what the fallback waits for.

    `has_receipts`: the provider of the first notification's channel sends some.
    """
    if fallback.unless is Unless.DELIVERED and not has_receipts:
        raise InvalidNotification(
            _UNLESS,
            "sent: the provider of this channel sends no receipts (receipts_secret is not set)",
        )
