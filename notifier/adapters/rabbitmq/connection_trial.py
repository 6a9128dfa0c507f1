"""Says how to fix a connection to RabbitMQ that failed: mostly about TLS."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from notifier.adapters.rabbitmq.errors import BrokerRefused
from notifier.domain.errors import BrokerUnavailable

TLS_TIMEOUT_S: Final = 2.0
_PORTS: Final = {"amqp": 5672, "amqps": 5671}

TRUST_CERTIFICATE: Final = (
    "trust the authority that signed the certificate: append ?cafile=/path/to/ca.pem to "
    "NOTIFIER_BROKER_URL; or renew the certificate"
)
USE_AMQPS: Final = "the port speaks TLS: write amqps:// instead of amqp:// in NOTIFIER_BROKER_URL"
USE_AMQP: Final = (
    "the port does not speak TLS: use RabbitMQ's TLS port (usually 5671), or write amqp:// instead "
    "of amqps:// in NOTIFIER_BROKER_URL"
)
CORRECT_LOGIN: Final = "correct user, password or vhost in NOTIFIER_BROKER_URL, or create them"
START: Final = (
    "start it (of a cluster most nodes), open the network path to it, or correct "
    "NOTIFIER_BROKER_URL"
)


async def explain_failure(url: str, error: BrokerUnavailable) -> str:
    """Return how to fix a connection to `url` that failed with `error`. Raises nothing."""
    causes = list(_causes(error))
    if isinstance(error, BrokerRefused):
        return CORRECT_LOGIN
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        return TRUST_CERTIFICATE
    if any(isinstance(cause, ssl.SSLError) for cause in causes):
        return USE_AMQP
    if urlsplit(url).scheme == "amqp" and await _speaks_tls(url):
        return USE_AMQPS
    return START


async def _speaks_tls(url: str) -> bool:
    parts = urlsplit(url)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        async with asyncio.timeout(TLS_TIMEOUT_S):
            _, writer = await asyncio.open_connection(
                parts.hostname, parts.port or _PORTS[parts.scheme], ssl=context
            )
    except ssl.SSLError as error:
        # A server that asks for a client certificate speaks TLS, too.
        return "WRONG_VERSION_NUMBER" not in str(error) and "RECORD_LAYER" not in str(error)
    except (OSError, ValueError, TimeoutError):
        return False
    writer.transport.abort()
    return True


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was raised from or during."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__
