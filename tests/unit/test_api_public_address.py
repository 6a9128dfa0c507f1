"""The public URL of a request, from the settings or from the headers of trusted proxies."""

from __future__ import annotations

from typing import Any

import pytest

from notifier.api.http.public_address import PublicAddress

PROXY = "10.0.0.7"
FORWARDED = {
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "notify.example",
    "X-Forwarded-Prefix": "/notify",
}


def scope(client: str = PROXY, **headers: str) -> Any:
    fields = {"Host": "127.0.0.1:8000"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    return {
        "scheme": "http",
        "client": (client, 50_000),
        "server": ("127.0.0.1", 8000),
        "headers": [(name.lower().encode(), value.encode()) for name, value in fields.items()],
    }


def behind(*trusted: str) -> PublicAddress:
    return PublicAddress("", trusted)


@pytest.mark.parametrize(
    ("public_url", "prefix", "url"),
    [
        ("https://notify.example", "", "https://notify.example"),
        ("https://notify.example/", "", "https://notify.example"),
        ("https://notify.example:8443/a/b/", "/a/b", "https://notify.example:8443/a/b"),
    ],
)
def test_the_public_url_counts_for_every_request(public_url: str, prefix: str, url: str) -> None:
    address = PublicAddress(public_url, [PROXY])
    for request in (scope(), scope(**FORWARDED), scope("203.0.113.9", **FORWARDED)):
        assert (address.prefix(request), address.url(request)) == (prefix, url)


@pytest.mark.parametrize(
    ("client", "trusted"),
    [
        ("10.0.0.7", "10.0.0.0/8"),
        ("10.0.0.7", "10.0.0.7"),
        ("::ffff:10.0.0.7", "10.0.0.0/8"),
        ("fd00::1%eth0", "fd00::/8"),
    ],
)
def test_the_headers_of_a_trusted_proxy_count(client: str, trusted: str) -> None:
    address, request = behind("192.0.2.1", trusted), scope(client, **FORWARDED)
    assert address.prefix(request) == "/notify"
    assert address.url(request) == "https://notify.example/notify"


@pytest.mark.parametrize("trusted", [(), ("192.168.0.0/16", "fd00::/8")])
def test_the_headers_of_everybody_else_are_ignored(trusted: tuple[str, ...]) -> None:
    address, request = behind(*trusted), scope(**FORWARDED)
    assert (address.prefix(request), address.url(request)) == ("", "http://127.0.0.1:8000")


@pytest.mark.parametrize(
    ("headers", "url"),
    [
        ({}, "http://127.0.0.1:8000"),
        ({"X-Forwarded-Proto": "HTTPS"}, "https://127.0.0.1:8000"),
        ({"X-Forwarded-Host": "evil.example, notify.example"}, "http://notify.example"),
        ({"X-Forwarded-Host": "n.example", "X-Forwarded-Port": "81"}, "http://n.example:81"),
        ({"X-Forwarded-Host": "n.example", "X-Forwarded-Port": "80"}, "http://n.example"),
        ({"X-Forwarded-Host": "n.example:82", "X-Forwarded-Port": "81"}, "http://n.example:82"),
        ({"X-Forwarded-Host": "[::1]", "X-Forwarded-Port": "81"}, "http://[::1]:81"),
        ({"X-Forwarded-Prefix": "/"}, "http://127.0.0.1:8000"),
        ({"X-Forwarded-Prefix": "/a/b/"}, "http://127.0.0.1:8000/a/b"),
    ],
)
def test_each_header_changes_its_part(headers: dict[str, str], url: str) -> None:
    assert behind(PROXY).url(scope(**headers)) == url


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Forwarded-Proto", "javascript"),
        ("X-Forwarded-Host", "$(reboot)"),
        ("X-Forwarded-Host", "a.example/<script>"),
        ("X-Forwarded-Prefix", "//evil.example"),
        ("X-Forwarded-Prefix", "/a b"),
        ("X-Forwarded-Prefix", "/<script>"),
        ("X-Forwarded-Prefix", "relative"),
        ("X-Forwarded-Port", "99999999"),
        ("X-Forwarded-Port", "x"),
    ],
)
def test_a_value_that_cannot_be_part_of_a_url_is_ignored(name: str, value: str) -> None:
    request = scope(**{name: value})
    assert behind(PROXY).url(request) == "http://127.0.0.1:8000"
    assert behind(PROXY).prefix(request) == ""
