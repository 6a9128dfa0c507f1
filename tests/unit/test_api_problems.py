"""Problems: their one table, the page made from it, and the id of the request in each answer."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from html import unescape
from urllib.parse import unquote
from uuid import UUID

import aiohttp
import msgspec
import pytest

from notifier.api.docs.problem_page import problem_page
from notifier.api.http.problem_types import ProblemType, Repeat
from notifier.api.http.problems import problem_of
from notifier.api.http.server import open_server
from notifier.api.responses import Problem
from notifier.domain.errors import InvalidNotification
from tests.unit.fakes_api import MemoryStore, make_api, open_client, submit_body

URN = "urn:notifier:request:"


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
async def client(store: MemoryStore) -> AsyncIterator[aiohttp.ClientSession]:
    async with open_client(make_api(store)) as client:
        yield client


def test_slugs_are_unique_words() -> None:
    slugs = [problem_type.value.slug for problem_type in ProblemType]
    assert len(set(slugs)) == len(slugs)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", slug) for slug in slugs)


def test_a_request_that_was_not_carried_out_may_be_repeated() -> None:
    safe = {each for each in ProblemType if each.value.repeat is Repeat.SAFE}
    assert safe == {
        ProblemType.HEAD_TIMEOUT,
        ProblemType.BODY_TIMEOUT,
        ProblemType.RATE_LIMITED,
        ProblemType.OVERLOADED,
        ProblemType.NOT_READY,
        ProblemType.KEY_IN_FLIGHT,
        ProblemType.FEATURE_UNAVAILABLE,
    }


def test_the_page_describes_each_type_with_a_valid_example() -> None:
    page = problem_page("/notify")
    assert 'href="/notify/docs"' in page
    examples = [unescape(text) for text in re.findall(r"<pre>(.*?)</pre>", page, re.DOTALL)]
    problems = [msgspec.json.decode(text, type=Problem) for text in examples]
    assert [problem.type for problem in problems] == [each.uri for each in ProblemType]
    assert all(problem.instance for problem in problems)
    for problem_type in ProblemType:
        assert f'id="{problem_type.value.slug}"' in page


async def test_the_page_is_served_without_scripts(client: aiohttp.ClientSession) -> None:
    async with client.get("/docs/problems") as response:
        assert (response.status, response.content_type) == (200, "text/html")
        assert response.headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert "invalid-field" in await response.text()


def test_every_wrong_field_is_an_entry_and_the_detail_counts_them() -> None:
    one = problem_of(InvalidNotification("a", "b"))
    assert (one.detail, one.errors and len(one.errors)) == ("a: expected b", 1)
    faults = [InvalidNotification(f"f{number}", "x") for number in range(30)]
    many = problem_of(InvalidNotification.of(faults))
    assert (many.detail, many.errors and len(many.errors)) == ("20 fields are wrong.", 20)


def test_names_from_outside_are_cut_and_can_be_encoded() -> None:
    problem = problem_of(InvalidNotification("\ud800" + "x" * 1000, "y", detail="z" * 1000))
    assert problem.errors is not None
    (error,) = problem.errors
    assert len(error.detail) == 400
    assert len(problem.detail) <= 400 + len("\\ud800")
    assert len(error.field) <= 200 + len("\\ud800")
    assert msgspec.json.encode(problem)


GIVEN = ["a", "x" * 64, 'a b"<>/?%', "~!", "00-4bf92f3577b34da6a3ce929d0e0e4736-01"]


@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize("path", ["/health", "/v1/queues", "/docs", "/nowhere", "/v1/queues?x=1"])
async def test_the_id_of_the_caller_is_in_every_answer(
    client: aiohttp.ClientSession, given: str, path: str
) -> None:
    async with client.get(path, headers={"Request-Id": given}) as response:
        assert response.headers.getall("Request-Id") == [given]
        if response.status >= 400:
            instance = (await response.json(content_type=None))["instance"]
            assert instance.startswith(URN)
            assert unquote(instance.removeprefix(URN)) == given
            assert re.fullmatch(r"[\w.~%-]+", instance.removeprefix(URN))


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH"])
async def test_answers_of_every_method_have_an_id(
    client: aiohttp.ClientSession, method: str
) -> None:
    for path in ("/v1/notifications", "/v1/pauses/queue/email.low", "/nowhere"):
        async with client.request(method, path) as response:
            assert UUID(response.headers["Request-Id"]).version == 7


async def test_requests_without_an_id_get_different_ones(client: aiohttp.ClientSession) -> None:
    seen = set()
    for _ in range(3):
        async with client.post("/v1/notifications", json=submit_body()) as response:
            seen.add(response.headers["Request-Id"])
    assert len(seen) == 3


HOSTILE = [
    b"x" * 65,
    b"",
    b"\xc3\xa9",
    b"\xff",
    b"a\tb",
    b"a\x7fb",
    b"a\x1b[31m",
    b"a\r\n\tX-Injected: 1",
    b"a%0d%0aX-Injected: 1\x0b",
]


@pytest.mark.parametrize("value", HOSTILE)
async def test_a_hostile_id_is_never_repeated(store: MemoryStore, value: bytes) -> None:
    async with open_server(make_api(store), host="127.0.0.1", port=0, grace_s=1) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            b"GET /nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\nRequest-Id: "
            + value
            + b"\r\n\r\n"
        )
        async with asyncio.timeout(20):
            received = await reader.read()
        writer.close()
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith((b"HTTP/1.1 404 ", b"HTTP/1.1 400 "))
    names = [line.partition(b":")[0].lower() for line in head.splitlines()[1:]]
    assert names.count(b"request-id") == 1
    assert b"x-injected" not in names
    (answered,) = re.findall(rb"(?im)^request-id: (.*?)\r?$", head + b"\r\n")
    assert UUID(answered.decode()).version == 7
    assert msgspec.json.decode(body, type=Problem).instance == URN + answered.decode()


async def test_what_is_no_request_is_answered_with_an_id(store: MemoryStore) -> None:
    async with open_server(make_api(store), host="127.0.0.1", port=0, grace_s=1) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"\x16\x03\x01 hello\r\n\r\n")
        async with asyncio.timeout(20):
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
    (answered,) = re.findall(rb"(?im)^request-id: (.*?)\r?$", head + b"\r\n")
    assert msgspec.json.decode(body, type=Problem).instance == URN + answered.decode()


async def test_an_unexpected_exception_is_logged_with_the_id_of_the_request(
    client: aiohttp.ClientSession, store: MemoryStore, capsys: pytest.CaptureFixture[str]
) -> None:
    store.error = RuntimeError("broken")
    async with client.get("/v1/queues", headers={"Request-Id": "call-17"}) as response:
        assert (await response.json(content_type=None))["instance"] == f"{URN}call-17"
    assert "call-17" in "".join(capsys.readouterr())


async def test_health_is_the_readiness_check(store: MemoryStore) -> None:
    for reasons, status in [((), 200), (("no database",), 503)]:
        async with open_client(make_api(store, reasons=reasons)) as client:
            for path in ("/health", "/health/ready"):
                async with client.get(path) as response:
                    assert response.status == status
