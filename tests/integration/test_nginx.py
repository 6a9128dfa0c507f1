"""deploy/nginx/notifier.conf, run by a private nginx in front of the API."""

from __future__ import annotations

import io
import json
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import aiohttp
import pytest
import trustme

from harness.nginx import ROOT, open_nginx
from notifier.api.http.public_address import path_prefix
from notifier.api.http.server import open_server
from notifier.app.accepting import api_rules
from notifier.embedded.free_ports import free_ports
from notifier.settings import load_settings
from tests.unit.fakes_api import MemoryStore, make_api, submit_body

SITE = (ROOT / "deploy/nginx/notifier.conf").read_text()
HOST = "notify.example.com"


@dataclass(frozen=True)
class Front:
    """The API as its callers see it: through nginx at `url`, and directly at `direct`."""

    client: aiohttp.ClientSession
    url: str
    direct: str


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    authority = trustme.CA()
    certificate = authority.issue_cert(HOST, "localhost", "127.0.0.1")
    certificate.private_key_pem.write_to_path(tmp_path / f"{HOST}.key")
    for number, blob in enumerate(certificate.cert_chain_pems):
        blob.write_to_path(tmp_path / f"{HOST}.pem", append=number > 0)
    return authority


def site(changes: dict[str, str]) -> str:
    """The shipped file with other ports and paths. Each text that is replaced must be in it."""
    text = SITE
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


@asynccontextmanager
async def behind_nginx(
    folder: Path, authority: trustme.CA, api_port: int, changes: dict[str, str]
) -> AsyncIterator[tuple[aiohttp.ClientSession, str]]:
    """Runs nginx in front of a port; yields a client that trusts it, and the URL of the API."""
    (port,) = free_ports(1)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    places = {
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "server 127.0.0.1:8000": f"server 127.0.0.1:{api_port}",
        "/etc/nginx/": f"{folder}/",
    }
    async with (
        open_nginx(folder, site(places | changes)),
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as client,
    ):
        yield client, f"https://localhost:{port}/notify"


@asynccontextmanager
async def fronted(
    folder: Path, authority: trustme.CA, environ: dict[str, str], changes: dict[str, str]
) -> AsyncIterator[Front]:
    """Runs the API with these settings behind nginx."""
    settings = load_settings(environ, cwd=folder)
    async with (
        open_server(
            make_api(MemoryStore(), replace(api_rules(settings), providers=())),
            host="127.0.0.1",
            port=0,
            grace_s=2,
            prefix=path_prefix(settings.api.public_url),
        ) as api_port,
        behind_nginx(folder, authority, api_port, changes) as (client, url),
    ):
        yield Front(client, url, f"http://127.0.0.1:{api_port}")


PUBLIC_URL = {"NOTIFIER_API__PUBLIC_URL": "https://notify.example.com/notify/"}
TRUSTED = {"NOTIFIER_API__TRUSTED_PROXIES": "127.0.0.0/8, ::1"}
KEEPS_PREFIX = {"http://notifier_api/;": "http://notifier_api;"}


@pytest.fixture(
    params=[(PUBLIC_URL, {}), (PUBLIC_URL, KEEPS_PREFIX), (TRUSTED, {})],
    ids=["public-url", "public-url-and-kept-prefix", "trusted-proxies"],
)
async def front(
    request: pytest.FixtureRequest, tmp_path: Path, authority: trustme.CA
) -> AsyncIterator[Front]:
    environ, changes = request.param
    async with fronted(tmp_path, authority, environ, changes) as front:
        yield front


async def get(front: Front, url: str) -> tuple[int, Any]:
    async with front.client.get(url, allow_redirects=False) as response:
        return response.status, await response.json(content_type=None)


async def test_the_location_of_a_submit_leads_through_the_proxy(front: Front) -> None:
    submit = f"{front.url}/v1/notifications"
    async with front.client.post(submit, json=submit_body()) as response:
        accepted = await response.json()
        assert response.status == 202
        location = response.headers["Location"]
    assert location == f"/notify/v1/notifications/{accepted['id']}"
    status, notification = await get(front, urljoin(submit, location))
    assert (status, notification["id"]) == (200, accepted["id"])


async def test_the_links_of_the_reference_lead_through_the_proxy(front: Front) -> None:
    async with front.client.get(front.url) as response:
        page = await response.text()
        assert response.url.path == "/notify/docs"
        assert response.url.scheme == "https"
    link, problems = re.findall(r'href="([^"#]+)"', page)
    async with front.client.get(urljoin(str(response.url), problems)) as response:
        assert (response.status, response.url.path) == (200, "/notify/docs/problems")
        assert 'href="/notify/docs"' in await response.text()
    status, document = await get(front, urljoin(str(response.url), link))
    (server,) = document["servers"]
    assert status == 200
    assert server["url"] in {"https://notify.example.com/notify", front.url}
    assert f"curl {server['url']}/v1/queues" in page


async def test_a_batch_of_8_mib_passes_and_a_larger_body_is_a_problem(front: Front) -> None:
    batch = f"{front.url}/v1/notifications/batch"
    headers = {"Content-Type": "application/json"}
    body = json.dumps({"notifications": [submit_body()]}).encode()
    for size, status in ((8 << 20, 202), ((8 << 20) + 1, 413), (16 << 20, 413)):
        data = io.BytesIO(body.ljust(size))
        async with front.client.post(batch, data=data, headers=headers) as response:
            assert response.status == status
            if status == 413:
                assert response.content_type == "application/problem+json"
                problem = await response.json(content_type=None)
                assert problem["type"] == "urn:notifier:problem:body-too-large"


async def test_a_caller_inside_reaches_the_api_with_and_without_the_prefix(front: Front) -> None:
    submit = f"{front.direct}/v1/notifications"
    async with front.client.post(submit, json=submit_body()) as response:
        assert response.status == 202
        location = response.headers["Location"]
    assert (await get(front, urljoin(submit, location)))[0] == 200


async def test_headers_of_a_caller_do_not_pass_the_proxy(front: Front) -> None:
    forged = {
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Proto": "http",
        "X-Forwarded-Prefix": "/evil",
    }
    async with front.client.get(f"{front.url}/docs", headers=forged) as response:
        assert "evil" not in await response.text()


async def test_without_trusted_proxies_no_forwarded_header_counts(
    tmp_path: Path, authority: trustme.CA
) -> None:
    async with fronted(tmp_path, authority, {}, {}) as front:
        async with front.client.post(
            f"{front.url}/v1/notifications", json=submit_body()
        ) as response:
            assert response.headers["Location"].startswith("/v1/notifications/")
        async with front.client.get(f"{front.url}/docs/openapi.json") as response:
            (server,) = (await response.json())["servers"]
    assert server["url"].startswith("http://localhost:")
    assert "/notify" not in server["url"]


async def test_an_api_that_is_down_is_a_problem_with_retry_after(
    tmp_path: Path, authority: trustme.CA
) -> None:
    (closed,) = free_ports(1)
    async with (
        behind_nginx(tmp_path, authority, closed, {}) as (client, url),
        client.get(f"{url}/v1/queues") as response,
    ):
        problem = await response.json(content_type=None)
        assert (response.status, response.content_type) == (503, "application/problem+json")
        assert response.headers["Retry-After"] == "1"
    assert problem["status"] == 503
