"""Parses query strings. Unknown and repeated parameters are errors; all are reported at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from math import inf
from typing import Annotated, Any, Final, TypeVar
from uuid import UUID

import msgspec
from litestar import Request

from notifier.api.http.cursors import (
    AnyFilter,
    cursor_after,
    cursor_after_key,
    key_in,
    position_in,
)
from notifier.api.http.decode_errors import INSTANT_EXPECTED
from notifier.api.http.problem_types import MAX_ERRORS
from notifier.api.http.suggestions import suggested
from notifier.api.http.uuids import canonical_uuid
from notifier.domain.credentials import Mode
from notifier.domain.errors import InvalidNotification
from notifier.domain.event_cursor import EventCursor, decode_cursor
from notifier.domain.events import EventType
from notifier.domain.lookups import LookupKind, LookupRules
from notifier.domain.mailbox import NamedAddress
from notifier.domain.notification import (
    FINAL,
    WEBHOOK_CHANNEL,
    EndReason,
    NotificationId,
    Priority,
    Status,
)
from notifier.domain.operations import OperationKind, OperationStatus
from notifier.domain.recipients import recipient_identity
from notifier.domain.stats import Dimension, Step
from notifier.domain.suppressions import SuppressionReason, SuppressionScope
from notifier.domain.tenants import TENANT_NAME_EXPECTED, TenantId, tenant_id
from notifier.domain.value_lists import escaped, separated
from notifier.ports.keys import AuditFilter
from notifier.ports.operations import OperationFilter
from notifier.ports.queries import Filter, View
from notifier.ports.suppressions import SuppressionFilter

T = TypeVar("T")
F = TypeVar("F", Filter, AuditFilter, SuppressionFilter, OperationFilter)
PAGING_PARAMETERS: Final = ("cursor", "limit")
AUDIT_FILTERS: Final = ("actor", "action", "target", "created_from", "created_to")
DEFAULT_LIMIT: Final = 50
MAX_LIMIT: Final = 200
MAX_VALUES: Final = 20
"""How many values one parameter takes, with commas between them."""
MAX_TEXT_LENGTH: Final = 100
_TEXT: Final = re.compile(rf"[ -+\--~]{{1,{MAX_TEXT_LENGTH}}}")
_MAX_LIMIT_DIGITS: Final = 3
METADATA: Final = "metadata"
WEBHOOK: Final = "webhook"
"""Selects the calls of a webhook."""
PARAMETER: Final = "?"
"""Stands before the name of a parameter where a fault is named."""
OF_FILTER: Final = "filter."
_IN_URL: Final = " (write + as %2B)"
OF_RESULTS: Final = ("reason", "provider", "code")
"""Filters of how notifications ended: they need final values of `status`."""
MAX_SEARCHED_LENGTH: Final = 4096
_SEARCHABLE_EXPECTED: Final = f"1 to {MAX_SEARCHED_LENGTH:,} printable characters"
_MIN_INSTANT: Final = datetime.fromtimestamp(0, UTC)
_MAX_INSTANT: Final = datetime.max.replace(tzinfo=UTC)

ValueParser = Callable[[str], Any]


class Query:
    """Parses a query string with these parameters, each at most once.

    `mark` stands before the name of a parameter where a fault is named.
    """

    def __init__(self, parsers: Mapping[str, ValueParser], mark: str = PARAMETER) -> None:
        self._parsers = parsers
        self._mark = mark

    def parse(self, request: Request[Any, Any, Any]) -> dict[str, Any]:
        """Returns the values that were given. Raises InvalidNotification with all wrong ones."""
        return self.values(request.query_params.multi_items())

    def values(self, given: Iterable[tuple[str, str]]) -> dict[str, Any]:
        """Returns the values of these texts. Raises InvalidNotification with all wrong ones."""
        values: dict[str, Any] = {}
        faults: list[InvalidNotification] = []
        for name, text in given:
            try:
                values[name] = self._value(name, str(text), values)
            except InvalidNotification as error:
                faults.append(error)
                if len(faults) == MAX_ERRORS:
                    break
        if faults:
            raise InvalidNotification.of(faults)
        return values

    def _value(self, name: str, text: str, seen: Mapping[str, Any]) -> object:
        field = f"{self._mark}{name}"
        if name not in self._parsers:
            raise _unknown(name, field, self._parsers)
        if name in seen:
            raise InvalidNotification(field, "the parameter once; write several values as a,b")
        try:
            return self._parsers[name](text)
        except ValueError as error:
            expected = str(error)
            if self._mark != PARAMETER:
                expected = expected.removesuffix(_IN_URL)
            raise InvalidNotification(field, expected) from error


class ListQuery:
    """Parses the filters of a list, `cursor` and `limit`. `fixed` holds what the route fixes.

    With `lookups` it has the filters of these, too.
    """

    def __init__(
        self,
        *filters: str,
        channels: Mapping[str, object],
        fixed: Filter | None = None,
        lookups: LookupRules | None = None,
    ) -> None:
        channel = partial(_any_of, tuple(channels))
        parsers: dict[str, ValueParser] = {**_PARSERS, "channel": channel}
        searched = {} if lookups is None else _lookup_parsers(lookups)
        named = {name: parsers[name] for name in (*filters, *PAGING_PARAMETERS)}
        self._query = Query(named | searched)
        self._fixed = fixed or Filter()

    def parse(self, request: Request[Any, Any, Any]) -> Filter:
        """Returns the filter. Raises InvalidNotification with the names of wrong parameters."""
        values = self._query.parse(request)
        cursor = values.pop("cursor", None)
        selection = replace(self._fixed, **_with_metadata(values))
        is_of_ended = selection.status and FINAL.issuperset(selection.status)
        if selection.is_of_results and not is_of_ended:
            expected = "final statuses, such as failed, beside reason, provider and code"
            raise InvalidNotification("?status", expected)
        return _after(cursor, selection)


class OperationFilters:
    """Reads the filter of an operation, whose names are those of the list's parameters."""

    def __init__(
        self, filters: Sequence[str], channels: Mapping[str, object], lookups: LookupRules
    ) -> None:
        parsers: dict[str, ValueParser] = {**_PARSERS, "channel": partial(_any_of, tuple(channels))}
        searched = _lookup_parsers(lookups)
        del searched["q"]
        named = {name: parsers[name] for name in filters}
        self._query = Query(named | searched | {"ids": str}, OF_FILTER)

    def read(self, document: Mapping[str, Sequence[str]]) -> Filter:
        """Returns the filter. Raises InvalidNotification with all fields that are wrong."""
        values = self._query.values(
            (name, ",".join(map(self._text_of(name), texts))) for name, texts in document.items()
        )
        return Filter(**_with_metadata(values))

    @staticmethod
    def _text_of(name: str) -> Callable[[str], str]:
        """Returns how a value of an array is written between commas."""
        is_searched = name in set(LookupKind) or name.startswith(f"{METADATA}.")
        return escaped if is_searched else str


class ErasureFilters:
    """Reads the filter of an erasure: one recipient, and whose notifications."""

    def __init__(self, channels: Mapping[str, object]) -> None:
        self._query = Query(
            {
                "recipient": _recipients,
                "channel": partial(_any_of, tuple(channels)),
                "tenant": _tenant,
                "mode": _mode,
            },
            OF_FILTER,
        )

    def read(self, document: Mapping[str, Sequence[str]]) -> Filter:
        """Returns the filter. Raises InvalidNotification with all fields that are wrong."""
        values = self._query.values(
            (name, ",".join(map(escaped, texts) if name == LookupKind.RECIPIENT else texts))
            for name, texts in document.items()
        )
        if len(values.get(LookupKind.RECIPIENT, ())) != 1:
            raise InvalidNotification(OF_FILTER + LookupKind.RECIPIENT, "one recipient")
        return Filter(**values)


class OperationQuery:
    """Parses the filters of the list of operations, `cursor` and `limit`."""

    def __init__(self) -> None:
        self._query = Query(
            {
                "kind": partial(_any_of, tuple(OperationKind)),
                "status": partial(_any_of, tuple(OperationStatus)),
                "cursor": str,
                "limit": _limit,
            }
        )

    def parse(self, request: Request[Any, Any, Any], view: View) -> OperationFilter:
        """Returns the filter of what a view has. Raises InvalidNotification."""
        values = self._query.parse(request)
        cursor = values.pop("cursor", None)
        return _after(cursor, OperationFilter(view=view, **values))


class AuditQuery:
    """Parses the filters of the audit, `cursor` and `limit`."""

    def __init__(self) -> None:
        names = (*AUDIT_FILTERS, *PAGING_PARAMETERS)
        self._query = Query({name: _PARSERS.get(name, _text) for name in names})

    def parse(self, request: Request[Any, Any, Any], tenant: TenantId | None) -> AuditFilter:
        """Returns the filter of a tenant's entries, or of all. Raises InvalidNotification."""
        values = self._query.parse(request)
        cursor = values.pop("cursor", None)
        return _after(cursor, AuditFilter(tenant=tenant, is_all=tenant is None, **values))


class SuppressionQuery:
    """Parses `tenant`, the filters of the list of suppressions, `cursor` and `limit`."""

    def __init__(self, channels: Mapping[str, object]) -> None:
        self._query = Query(
            {
                "tenant": _tenant,
                "channel": partial(_any_of, tuple(channels)),
                "recipient": _recipients,
                "topic": _texts,
                "reason": partial(_any_of, tuple(SuppressionReason)),
                "cursor": str,
                "limit": _limit,
            }
        )

    def parse(self, request: Request[Any, Any, Any]) -> dict[str, Any]:
        """Returns the values that were given. Raises InvalidNotification with all wrong ones."""
        return self._query.parse(request)

    @staticmethod
    def selection(values: Mapping[str, Any], scope: SuppressionScope) -> SuppressionFilter:
        """Returns the filter of these values. Raises InvalidNotification for a wrong cursor."""
        fields = {name: values[name] for name in values if name not in {"tenant", "cursor"}}
        return _after(values.get("cursor"), SuppressionFilter(scope=scope, **fields))


class EventQuery:
    """Parses `tenant`, `mode` and the filters of events, and the parameters of `others`."""

    def __init__(self, channels: Mapping[str, object], *others: str) -> None:
        parsers: dict[str, ValueParser] = {
            "tenant": _tenant,
            "mode": _mode,
            "type": _event_types,
            "channel": partial(_any_of, tuple(channels)),
            "priority": partial(_any_of, tuple(Priority)),
            "tag": _searchable_texts,
            "notification": _ids,
            "limit": _limit,
        }
        readable: dict[str, ValueParser] = {"cursor": _event_cursor, "from": _instant}
        self._query = Query(parsers | {name: readable[name] for name in others})

    def parse(self, request: Request[Any, Any, Any]) -> dict[str, Any]:
        """Returns the values that were given. Raises InvalidNotification with all wrong ones."""
        return self._query.parse(request)


class StatsQuery:
    """Parses the parameters of statistics."""

    def __init__(self) -> None:
        self._query = Query(
            {
                "from": _instant,
                "to": _instant,
                "step": _step,
                "by": partial(_any_of, tuple(Dimension)),
                "tenant": _tenant,
                "cursor": str,
            }
        )

    def parse(self, request: Request[Any, Any, Any]) -> dict[str, Any]:
        """Returns the values that were given. Raises InvalidNotification with all wrong ones."""
        values = self._query.parse(request)
        if "from" in values and values["from"] >= values.get("to", inf):
            raise InvalidNotification("?from", "an instant before ?to")
        return values


class FailureGroupQuery:
    """Parses the parameters of groups of failures."""

    def __init__(self, channels: Mapping[str, object]) -> None:
        self._query = Query(
            {"tenant": _tenant, "mode": _mode, "channel": partial(_any_of, tuple(channels))}
        )

    def parse(self, request: Request[Any, Any, Any]) -> Filter:
        """Returns the filter. Raises InvalidNotification with all wrong parameters."""
        return Filter(**self._query.parse(request))


class InboxQuery:
    """Parses `tenant`, and those of the parameters of inboxes that are named."""

    def __init__(self, *names: str) -> None:
        known: dict[str, ValueParser] = {
            "unread": _true,
            "cursor": str,
            "limit": _limit,
            "token": str,
        }
        self._query = Query({"tenant": _tenant} | {name: known[name] for name in names})

    def parse(self, request: Request[Any, Any, Any]) -> dict[str, Any]:
        """Returns the values that were given. Raises InvalidNotification with all wrong ones."""
        return self._query.parse(request)


def offered_filters(names: Sequence[str], lookups: LookupRules) -> list[str]:
    """Returns the parameters of a list that the settings allow, each key of metadata by itself."""
    if METADATA not in names:
        return list(names)
    keys = [f"{METADATA}.{key}" for key in lookups.metadata_keys]
    needed = {LookupKind.RECIPIENT, LookupKind.TAG, LookupKind.REFERENCE}
    return [
        *(name for name in names if name != METADATA and (name not in needed or lookups.has(name))),
        *keys,
    ]


def next_cursor(selection: AnyFilter, last: UUID | None) -> str | None:
    """Returns the cursor of the page of the same filter after this id; None if there is none."""
    return None if last is None else cursor_after(last, selection)


def parse_include(*parts: str, names_tenant: bool = False) -> Query:
    """Returns the query of a route whose answer has optional parts, and which may name a tenant."""
    parsers: dict[str, ValueParser] = {"include": partial(_any_of, parts)}
    return Query(parsers | {"tenant": _tenant} if names_tenant else parsers)


def _with_metadata(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of a filter: all keys of metadata in one, and an id in `q` as the id."""
    metadata = {name: value for name, value in values.items() if name.startswith(f"{METADATA}.")}
    fields = {name: value for name, value in values.items() if name not in metadata}
    if WEBHOOK in fields:
        if fields.keys() & {"channel", "recipient"}:
            raise InvalidNotification(WEBHOOK, "neither channel nor recipient beside it")
        fields["recipient"] = tuple(map(str, fields.pop(WEBHOOK)))
        fields["channel"] = (WEBHOOK_CHANNEL,)
    if metadata:
        fields[METADATA] = tuple(
            (name.partition(".")[2], value) for name, value in sorted(metadata.items())
        )
    if isinstance(fields.get("q"), UUID):
        fields["id"] = NotificationId(fields.pop("q"))
    return fields


def _lookup_parsers(lookups: LookupRules) -> dict[str, ValueParser]:
    named: dict[str, ValueParser] = {
        LookupKind.TAG: _searchable_texts,
        LookupKind.RECIPIENT: _recipients,
        LookupKind.REFERENCE: _searchable_texts,
    }
    allowed = {
        name: parser if lookups.has(name) else partial(_not_searchable, name)
        for name, parser in named.items()
    }
    keys = {f"{METADATA}.{key}": _searchable_texts for key in lookups.metadata_keys}
    return {**allowed, **keys, WEBHOOK: _ids, "q": partial(_id_or_text, lookups)}


def _not_searchable(name: str, _text: str) -> object:
    raise ValueError(f"no such filter: nothing is found by it while lookups.{name} is false")


def _id_or_text(lookups: LookupRules, text: str) -> UUID | str:
    if (id_ := canonical_uuid(text)) is not None:
        return id_
    if not (lookups.recipient or lookups.reference):
        raise ValueError(
            "the id of a notification; for a recipient or a reference set lookups.recipient or "
            "lookups.reference in the settings"
        )
    if not 0 < len(text) <= MAX_SEARCHED_LENGTH or not text.isprintable():
        raise ValueError(_SEARCHABLE_EXPECTED)
    if text != text.strip():
        raise ValueError("a recipient or a reference without blanks around it (write + as %2B)")
    return text


def _searchable_texts(text: str) -> tuple[str, ...]:
    values = tuple(sorted(set(separated(text))))
    if len(values) > MAX_VALUES or not all(
        0 < len(value) <= MAX_SEARCHED_LENGTH and value.isprintable() for value in values
    ):
        raise ValueError(f"{_SEARCHABLE_EXPECTED}, or up to {MAX_VALUES} with commas between them")
    return values


def _recipients(text: str) -> tuple[str, ...]:
    return tuple(sorted({_recipient(value) for value in _searchable_texts(text)}))


def _recipient(text: str) -> str:
    """Returns the form in which a recipient is stored. A mailbox may have a name, as at submit."""
    if text.endswith(">") and "@" in text:
        with suppress(ValueError):
            text = NamedAddress.parse(text).address
    if " " in text:  # no recipient has one, but + in a query means it
        raise ValueError(f"recipients without blanks, as they were submitted{_IN_URL}")
    return recipient_identity(text)


def _unknown(name: str, field: str, known: Mapping[str, object]) -> InvalidNotification:
    if name.startswith(f"{METADATA}."):
        return InvalidNotification(field, "a key of the setting lookups.metadata_keys")
    if meant := suggested(name, list(known)):
        detail = f"unknown parameter, did you mean {meant}?"
        return InvalidNotification(field, meant, detail=detail)
    expected = f"only {', '.join(known)} here"
    return InvalidNotification(field, expected, detail=f"unknown parameter, expected {expected}")


def _after(cursor: str | None, selection: F) -> F:
    """Returns the filter of the page at a cursor; None is the first page."""
    if cursor is None:
        return selection
    position = position_in(cursor, selection)
    if position is None:
        raise wrong_cursor()
    return replace(selection, before=position)


def wrong_cursor() -> InvalidNotification:
    """Returns the refusal of a cursor that is not of the list."""
    expected = "the next_cursor of a page of the same list, with the same filters"
    return InvalidNotification("?cursor", expected)


def parse_paging(request: Request[Any, Any, Any], *, names_tenant: bool = False) -> dict[str, Any]:
    """Returns `cursor` and `limit`, and `tenant` where it is allowed, as far as they are given.

    Raises InvalidNotification with all wrong parameters.
    """
    return (_TENANT_PAGING if names_tenant else _PAGING).parse(request)


def page_of(
    rows: Iterable[T], key: Callable[[T], str], paging: Mapping[str, Any], listed: str
) -> tuple[Sequence[T], str | None]:
    """Returns one page of all rows in the order of their keys, and the next cursor.

    `listed` names the list to which the cursor belongs. Raises InvalidNotification for another.
    """
    cursor, limit = paging.get("cursor"), paging.get("limit", DEFAULT_LIMIT)
    after = "" if cursor is None else key_in(cursor, listed)
    if after is None:
        raise wrong_cursor()
    left = sorted((row for row in rows if key(row) > after), key=key)
    page = left[:limit]
    return page, cursor_after_key(key(page[-1]), listed) if len(left) > limit else None


def _true(text: str) -> bool:
    if text not in {"true", "false"}:
        raise ValueError("true or false")
    return text == "true"


def _limit(text: str) -> int:
    is_number = text.isascii() and text.isdigit() and len(text) <= _MAX_LIMIT_DIGITS
    limit = int(text) if is_number else 0
    if not 1 <= limit <= MAX_LIMIT:
        raise ValueError(f"a whole number from 1 to {MAX_LIMIT}")
    return limit


def _instant(text: str) -> float:
    try:
        at: datetime = msgspec.convert(text, Annotated[datetime, msgspec.Meta(tz=True)])
    except msgspec.ValidationError as error:
        raise ValueError(f"{INSTANT_EXPECTED}{_IN_URL}") from error
    # The database cannot hold every instant, and no notification is as old or as young as these.
    return min(max(at, _MIN_INSTANT), _MAX_INSTANT).timestamp()


def _any_of(allowed: Sequence[str], text: str) -> tuple[str, ...]:
    values = tuple(sorted(set(text.split(","))))
    if not set(values).issubset(allowed):
        raise ValueError(f"one of {', '.join(allowed)}, or several with commas between them")
    return values


def _texts(text: str) -> tuple[str, ...]:
    values = tuple(sorted(set(text.split(","))))
    if len(values) > MAX_VALUES or not all(map(_TEXT.fullmatch, values)):
        raise ValueError(
            f"1 to {MAX_TEXT_LENGTH} printable ASCII characters, or up to {MAX_VALUES} such values "
            "with commas between them"
        )
    return values


def _event_types(text: str) -> tuple[str, ...]:
    """Returns the types that are named, or that begin as one that ends in .* does."""
    names: set[str] = set()
    for part in text.split(","):
        named = {
            type_
            for type_ in EventType
            if type_ == part or (part.endswith(".*") and type_.startswith(part[:-1]))
        }
        if not named:
            raise ValueError(
                f"one of {', '.join(EventType)}, or notification.*, or several with commas "
                "between them"
            )
        names |= named
    return tuple(sorted(names))


def _ids(text: str) -> tuple[NotificationId, ...]:
    ids = [canonical_uuid(part) for part in text.split(",")]
    if len(ids) > MAX_VALUES or None in ids:
        raise ValueError(f"an id, or up to {MAX_VALUES} with commas between them")
    return tuple(NotificationId(id_) for id_ in ids if id_ is not None)


def _event_cursor(text: str) -> EventCursor:
    try:
        return decode_cursor(text)
    except ValueError as error:
        raise ValueError("the next_cursor of a page of events, or the id of a stream") from error


def _tenant(text: str) -> TenantId:
    try:
        return tenant_id(text)
    except ValueError as error:
        raise ValueError(TENANT_NAME_EXPECTED) from error


def _step(text: str) -> Step:
    if text not in tuple(Step):
        raise ValueError(f"one of {', '.join(Step)}")
    return Step(text)


def _mode(text: str) -> Mode:
    if text not in tuple(Mode):
        raise ValueError(f"one of {', '.join(Mode)}")
    return Mode(text)


def named_tenant(request: Request[Any, Any, Any]) -> TenantId | None:
    """Returns the tenant that the query names. Raises InvalidNotification for another parameter."""
    named: TenantId | None = _TENANT_QUERY.parse(request).get("tenant")
    return named


def _text(text: str) -> str:
    if not _TEXT.fullmatch(text):
        raise ValueError(f"1 to {MAX_TEXT_LENGTH} printable ASCII characters")
    return text


_PARSERS: Final[Mapping[str, ValueParser]] = {
    "status": partial(_any_of, tuple(Status)),
    "tenant": _tenant,
    "mode": _mode,
    "priority": partial(_any_of, tuple(Priority)),
    "reason": partial(_any_of, tuple(EndReason)),
    "provider": _texts,
    "code": _texts,
    "created_from": _instant,
    "created_to": _instant,
    "cursor": str,
    "limit": _limit,
}
_TENANT_QUERY: Final = Query({"tenant": _tenant})
_PAGING: Final = Query({"cursor": str, "limit": _limit})
_TENANT_PAGING: Final = Query({"tenant": _tenant, "cursor": str, "limit": _limit})
