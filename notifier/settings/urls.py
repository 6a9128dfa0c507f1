"""Checks the URLs of the database and the broker before a driver reads them.

The drivers guess the missing parts of a URL (from libpq's variables, a socket or the user's name)
and quote parts of it in their errors. The texts of the problems here contain no part of the URL.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from notifier.domain.domain_names import InvalidDomain, ascii_domain
from notifier.settings.problems import did_you_mean

_TLS: Final = frozenset({"TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"})
_CHOICES: Final[Mapping[str, frozenset[str]]] = {
    "sslmode": frozenset({"disable", "allow", "prefer", "require", "verify-ca", "verify-full"}),
    "sslnegotiation": frozenset({"postgres", "direct"}),
    "ssl_min_protocol_version": _TLS,
    "ssl_max_protocol_version": _TLS,
    "target_session_attrs": frozenset(
        {"any", "primary", "standby", "prefer-standby", "read-write", "read-only"}
    ),
    "gsslib": frozenset({"gssapi", "sspi"}),
}
# Keys that asyncpg reads, then settings of the server: it sends every other key as one of those.
_KEYS: Final = frozenset(
    {"host", "port", "user", "password", "database", "dbname", "passfile", "krbsrvname"}
    | {"sslcert", "sslkey", "sslrootcert", "sslcrl", "sslpassword", *_CHOICES}
    | {"application_name", "options", "search_path", "timezone", "jit"}
    | {"statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"}
)
_AUTHORITIES: Final = ("sslrootcert", "sslcrl")
_FILES: Final = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
# Keys that aiormq reads. It ignores other keys, and treats any no_verify_ssl except 0 as yes.
_BROKER_TLS_KEYS: Final = frozenset(
    {"cafile", "capath", "cadata", "certfile", "keyfile", "no_verify_ssl"}
)
_BROKER_KEYS: Final = _BROKER_TLS_KEYS | {"auth", "heartbeat", "name", "timeout"}
_BROKER_CHOICES: Final[Mapping[str, frozenset[str]]] = {"no_verify_ssl": frozenset({"0", "1"})}
_BROKER_FILES: Final = ("cafile", "capath", "certfile", "keyfile")
_TLS_ONLY: Final = frozenset({"require", "verify-ca", "verify-full"})
_HOST: Final = re.compile(r"(?:\[[0-9A-Za-z:.%]+\]|[^\[\]:/@]+)(?::(?P<port>.*))?")
_MAX_PORT: Final = 65_535


def database_url_problems(url: str) -> Iterator[str]:
    """Yield the reasons why asyncpg would reject this URL or misread it."""
    try:
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query, strict_parsing=True)) if parts.query else {}
    except ValueError:
        yield "it cannot be read"
        return
    yield from _character_problems(url)
    if "#" in url or parts.netloc.count("@") > 1 or re.search("[@/]", parts.path[1:]):
        yield "in a user, password or name, @ / ? # must be written as %40 %2F %3F %23"
    yield from _host_problems(parts.netloc.rpartition("@")[2], query)
    if not (parts.path[1:] or query.get("dbname") or query.get("database")):
        yield "it names no database"
    yield from _key_problems(query, _KEYS, _CHOICES)
    if query.get("sslnegotiation") == "direct" and query.get("sslmode") not in _TLS_ONLY:
        yield "sslnegotiation=direct needs sslmode=require, verify-ca or verify-full"
    if query.get("sslmode") not in _TLS_ONLY:
        for key in _AUTHORITIES:
            if key in query:
                yield f"its {key} has no effect without sslmode=verify-full or verify-ca"
    yield from _file_problems(query, _FILES)


def broker_url_problems(url: str) -> Iterator[str]:
    """Yield the reasons why aiormq would reject this URL or misread it."""
    try:
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query, strict_parsing=True)) if parts.query else {}
    except ValueError:
        yield "it cannot be read"
        return
    yield from _character_problems(url)
    yield from _host_problems(parts.netloc.rpartition("@")[2], {})
    yield from _key_problems(query, _BROKER_KEYS, _BROKER_CHOICES)
    if parts.scheme == "amqp":
        for key in query:
            if key in _BROKER_TLS_KEYS:
                yield f"its {key} has no effect without amqps://"
    yield from _file_problems(query, _BROKER_FILES)


def _character_problems(url: str) -> Iterator[str]:
    if not url.isprintable():
        yield "it contains a character that cannot be printed"
    if url != url.strip():
        yield "it begins or ends with a blank"


def _host_problems(authority: str, query: Mapping[str, str]) -> Iterator[str]:
    hosts = (authority or query.get("host", "")).split(",")
    if hosts == [""]:
        yield "it names no host"
        return
    # A host that starts with / is the folder of a socket.
    found = [_HOST.fullmatch(host) for host in hosts if not host.startswith("/")]
    if None in found:
        yield "its host cannot be read"
    # The drivers would convert it by IDNA 2003, to another domain for some names.
    for host in hosts:
        if not host.startswith("/") and not host.isascii():
            yield f"its host must be written in ASCII{_ascii_hint(host)}"
    ports = query["port"].split(",") if "port" in query else []
    if not all(map(_is_port, [*ports, *(match["port"] or "" for match in found if match)])):
        yield f"its port is not an integer from 1 to {_MAX_PORT}"
    if len(ports) not in {0, 1, len(hosts)}:
        yield "its number of ports differs from its number of hosts"


def _ascii_hint(host: str) -> str:
    name = host.partition(":")[0]
    try:
        return f": {ascii_domain(name)} instead of {name}"
    except InvalidDomain:
        return ""


def _is_port(text: str) -> bool:
    """Return whether the text is a port or empty."""
    return not text or (re.fullmatch("[0-9]{1,5}", text) is not None and 0 < int(text) <= _MAX_PORT)


def _key_problems(
    query: Mapping[str, str], keys: frozenset[str], choices: Mapping[str, frozenset[str]]
) -> Iterator[str]:
    for key, value in query.items():
        if key not in keys:
            yield f"it has an unknown query key{did_you_mean(key, keys)}"
        elif key in choices and value not in choices[key]:
            yield f"its {key} is not one of {', '.join(sorted(choices[key]))}"


def _file_problems(query: Mapping[str, str], keys: Sequence[str]) -> Iterator[str]:
    # The drivers' own errors do not name the missing file.
    for key in keys:
        if key in query and not os.access(query[key], os.R_OK):
            yield f"its {key} names a file that cannot be read"
