"""The calls of both clients, as generators of steps."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Final, TypeVar
from urllib.parse import quote
from uuid import uuid4

from notifier_client.decoding import Undecodable, decode, parse_object
from notifier_client.documents import Accepted, Blob, Explanation, Notification, Page
from notifier_client.errors import NotifierError, error_of, problem_error, unreadable
from notifier_client.exchange import Answer, Pause, Request, Steps
from notifier_client.filters import PAGE_SIZE, with_query
from notifier_client.retrying import Policy, attempts
from notifier_client.submits import MAX_BATCH, batches, encoded, submit_document

T = TypeVar("T")
BatchResult = Accepted | NotifierError
_NOTIFICATIONS: Final = "/notifications"
_FIRST_POLL_S: Final = 0.1
_POLL_GROWTH: Final = 1.5
_MAX_POLL_S: Final = 2.0
_MIN_READ_S: Final = 1.0


@dataclass(frozen=True)
class Calls:
    """Makes the steps of each call."""

    policy: Policy

    def send(self, fields: Mapping[str, Any]) -> Steps[Accepted]:
        """Submit one notification."""
        document = submit_document(fields, _new_key())
        key = document["idempotency_key"]
        request = _post(_NOTIFICATIONS, document, is_repeatable=True, key=key)
        answer = yield from self._succeeded(request)
        accepted = _decoded(Accepted, answer, key)
        return replace(accepted, is_replay=_is_replay(answer), idempotency_key=key)

    def send_many(
        self, notifications: Iterable[Mapping[str, Any]], key: str | None, size: int
    ) -> Steps[list[BatchResult]]:
        """Submit many in batches. All are encoded before the first is sent."""
        if not 1 <= size <= MAX_BATCH:
            raise ValueError(f"batch_size: expected 1 to {MAX_BATCH}, got {size}")
        key = _new_key() if key is None else key
        documents = [
            submit_document(fields, f"{key}#{number}")
            for number, fields in enumerate(notifications)
        ]
        keys = iter([document["idempotency_key"] for document in documents])
        items = [encoded(document) for document in documents]
        results: list[BatchResult] = []
        for length, body in batches(items, size):
            try:
                results += yield from self._batch(body, list(islice(keys, length)), key)
            except NotifierError as error:
                error.results = tuple(results)
                raise
        return results

    def upload(self, data: bytes, content_type: str, tenant: str | None) -> Steps[Blob]:
        """Upload a file. A repeat has the same id."""
        request = Request(
            method="POST",
            path=with_query("/blobs", {} if tenant is None else {"tenant": tenant}),
            is_repeatable=True,
            body=data,
            content_type=content_type,
        )
        return _decoded(Blob, (yield from self._succeeded(request)))

    def get(
        self, id_: str, include: Collection[str] = (), deadline_s: float | None = None
    ) -> Steps[Notification]:
        """Read one notification."""
        query = {"include": ",".join(include)} if include else {}
        request = Request(method="GET", path=with_query(_path(id_), query), is_repeatable=True)
        return _decoded(Notification, (yield from self._succeeded(request, deadline_s)))

    def page(self, query: Mapping[str, str]) -> Steps[tuple[Page, dict[str, str] | None]]:
        """Read a page, and make the query of the next one; None if it was the last."""
        path = with_query(_NOTIFICATIONS, {"limit": str(PAGE_SIZE), **query})
        answer = yield from self._succeeded(Request(method="GET", path=path, is_repeatable=True))
        page = _decoded(Page, answer)
        return page, {**query, "cursor": page.next_cursor} if page.next_cursor else None

    def cancel(self, id_: str, note: str | None) -> Steps[Notification]:
        """Cancel one that waits. A repeat changes nothing."""
        request = _post(f"{_path(id_)}/cancel", _note(note), is_repeatable=True)
        return _decoded(Notification, (yield from self._succeeded(request)))

    def retry(self, id_: str, note: str | None) -> Steps[Notification]:
        """Send one again that has ended. A repeat may send it once more, so there is none."""
        request = _post(f"{_path(id_)}/retry", _note(note), is_repeatable=False)
        return _decoded(Notification, (yield from self._succeeded(request)))

    def explain(self, id_: str) -> Steps[Explanation]:
        """Read why one waits."""
        request = Request(method="GET", path=f"{_path(id_)}/explain", is_repeatable=True)
        return _decoded(Explanation, (yield from self._succeeded(request)))

    def wait(self, id_: str, timeout_s: float) -> Steps[Notification]:
        """Read one until its status is final."""
        clock = self.policy.clock
        ends_at = clock() + timeout_s
        pause_s = _FIRST_POLL_S
        while True:
            deadline_s = min(max(ends_at - clock(), _MIN_READ_S), self.policy.deadline_s)
            found = yield from self.get(id_, deadline_s=deadline_s)
            remaining_s = ends_at - clock()
            if found.is_final:
                return found
            if remaining_s <= 0:
                raise TimeoutError(f"notification {id_} is {found.status} after {timeout_s:g} s")
            yield Pause(min(pause_s, remaining_s))
            pause_s = min(pause_s * _POLL_GROWTH, _MAX_POLL_S)

    def _batch(self, body: bytes, keys: Sequence[str], key: str) -> Steps[list[BatchResult]]:
        request = Request(
            method="POST",
            path=f"{_NOTIFICATIONS}/batch",
            is_repeatable=True,
            body=body,
            idempotency_key=key,
        )
        answer = yield from attempts(request, self.policy)
        results = _results(answer)
        if results is None:
            raise error_of(answer, key)
        if len(results) != len(keys):
            raise unreadable(answer, f"{len(results)} results for {len(keys)}", key)
        return [_result(answer, *pair) for pair in zip(results, keys, strict=True)]

    def _succeeded(self, request: Request, deadline_s: float | None = None) -> Steps[Answer]:
        policy = self.policy if deadline_s is None else replace(self.policy, deadline_s=deadline_s)
        answer = yield from attempts(request, policy)
        if not answer.is_success:
            raise error_of(answer, request.idempotency_key)
        return answer


def _new_key() -> str:
    return str(uuid4())


def _path(id_: str) -> str:
    if not id_:
        raise ValueError("expected the id of a notification, got an empty text")
    return f"{_NOTIFICATIONS}/{quote(str(id_), safe='')}"


def _note(note: str | None) -> dict[str, str]:
    return {} if note is None else {"note": note}


def _post(path: str, document: object, *, is_repeatable: bool, key: str | None = None) -> Request:
    return Request(
        method="POST",
        path=path,
        is_repeatable=is_repeatable,
        body=encoded(document),
        idempotency_key=key,
    )


def _is_replay(answer: Answer) -> bool:
    return answer.headers.get("idempotent-replayed") == "true"


def _decoded(kind: type[T], answer: Answer, key: str | None = None) -> T:
    try:
        return decode(kind, parse_object(answer.body))
    except Undecodable as error:
        raise unreadable(answer, str(error), key) from error


def _results(answer: Answer) -> list[Any] | None:
    """Return the results of a batch, of which none may be accepted; None for any other answer."""
    try:
        results = parse_object(answer.body).get("results")
    except Undecodable:
        return None
    return results if isinstance(results, list) else None


def _result(answer: Answer, result: object, key: str) -> BatchResult:
    if isinstance(result, dict) and isinstance(problem := result.get("problem"), dict):
        return problem_error(problem, answer, key)
    try:
        accepted = decode(Accepted, result)
    except Undecodable as error:
        raise unreadable(answer, str(error), key) from error
    return replace(accepted, is_replay=_is_replay(answer), idempotency_key=key)
