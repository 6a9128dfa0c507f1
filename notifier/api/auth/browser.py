"""Refuses what another site makes a browser send, and reads through a name that it controls.

A browser names the site of a page in `Origin`. What has no Origin, a page of the attacker can read
only if its own host name leads here (DNS rebinding): so an API without keys answers only to names
that no stranger can register. With keys such a page has neither a key nor a cookie.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Sequence

_PRIVATE_SUFFIXES: Final = (
    ".localhost",
    ".local",
    ".internal",
    ".lan",
    ".home.arpa",
    ".svc",
    ".test",
)
_DEFAULT_PORTS: Final = (":80", ":443")


def is_own_origin(origin: str, own_hosts: Sequence[str]) -> bool:
    """Return whether a page of this origin was served by us, at one of these hosts with port.

    Another port of the same host is another server, which gets the same cookies.
    """
    _, separator, host = origin.partition("://")
    return "" not in {separator, host} and _without_port(host) in map(_without_port, own_hosts)


def is_private_host(host: str, known: Sequence[str]) -> bool:
    """Return whether no stranger can register the name in a Host header, or it is one of `known`.

    Addresses and names without a dot are private, too.
    """
    name = _name(host)
    if name in known or name.endswith(_PRIVATE_SUFFIXES) or "." not in name.strip("[]"):
        return True
    try:
        ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def host_of(url: str) -> str:
    """Return the host of a URL with its port, as an origin has it; empty without one."""
    return urlsplit(url).netloc.rpartition("@")[2]


def host_names(*urls: str) -> tuple[str, ...]:
    """Return the names of the hosts of URLs or addresses; empty ones have none."""
    return tuple(_name(urlsplit(url).netloc or url) for url in urls if url)


def _name(host: str) -> str:
    """Return a host without its port, in lower case and without a dot at the end."""
    head, _, tail = host.lower().rpartition(":")
    is_port = tail.isdigit() and head != "" and not head.endswith(":")
    return (head if is_port and (head.endswith("]") or ":" not in head) else host.lower()).rstrip(
        "."
    )


def _without_port(host: str) -> str:
    """Return a host without the port that its scheme has anyway."""
    lowered = host.lower()
    for port in _DEFAULT_PORTS:
        lowered = lowered.removesuffix(port)
    return lowered
