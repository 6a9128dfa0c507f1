"""Which addresses a webhook may be called at: those of the public internet, and allowed networks.

Whoever makes a webhook chooses its URL. Without this check Notifier would call services inside the
operator's network for them (server-side request forgery).
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

IpAddress = IPv4Address | IPv6Address
IpNetwork = IPv4Network | IPv6Network

_REFUSED: Final[Sequence[IpNetwork]] = tuple(
    map(
        ip_network,
        (
            "100.64.0.0/10",  # shared by providers (RFC 6598)
            "192.0.0.0/24",  # of the IETF (RFC 6890)
            "192.88.99.0/24",  # relays of 6to4 (RFC 7526)
            "::/96",  # compatible with IPv4, deprecated (RFC 4291 2.5.5.1)
            "::ffff:0:0/96",  # mapped IPv4 (RFC 4291 2.5.5.2)
            "::ffff:0:0:0/96",  # translated IPv4 (RFC 2765)
            "64:ff9b::/96",  # NAT64 (RFC 6052)
            "64:ff9b:1::/48",  # NAT64 of one network (RFC 8215)
            "100::/64",  # discarded (RFC 6666)
            "2001::/23",  # of the IETF (RFC 2928), with Teredo (RFC 4380)
            "2002::/16",  # 6to4 (RFC 3056)
            "fec0::/10",  # site-local, deprecated (RFC 3879)
        ),
    )
)
"""Networks that a version of `ipaddress` may call global although nobody is reached there."""


def parse_networks(texts: Sequence[str]) -> Sequence[IpNetwork]:
    """Return the networks of texts like 10.0.0.0/8. Raises ValueError for any other text."""
    return [ip_network(text, strict=False) for text in texts]


def may_be_called(address: IpAddress, allowed: Sequence[IpNetwork]) -> bool:
    """Whether an address is public, or in one of the allowed networks."""
    if any(address in network for network in allowed):
        return True
    if any(address in network for network in _REFUSED):
        return False
    return address.is_global and not address.is_multicast


def parse_address(text: str) -> IpAddress | None:
    """Return the address that a text is, in brackets or not, with or without a zone; else None."""
    bare = text.removeprefix("[").removesuffix("]").partition("%")[0]
    try:
        return ip_address(bare)
    except ValueError:
        return None
