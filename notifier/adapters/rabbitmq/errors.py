"""Translates the driver's errors into BrokerUnavailable; no other module reads them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from aiormq.exceptions import (
    AuthenticationError,
    ChannelAccessRefused,
    ConnectionClosed,
    ConnectionNotAllowed,
    InvalidFrameError,
    ProbableAuthenticationError,
)

from notifier.domain.errors import BrokerUnavailable

_REFUSALS: Final = (
    AuthenticationError,
    ChannelAccessRefused,
    ConnectionNotAllowed,
    ProbableAuthenticationError,
)
_REFUSAL_CODES: Final = ((403,), (530,))


class BrokerRefused(BrokerUnavailable):
    """RabbitMQ answers, but refuses the credentials or the vhost: an operator must act."""


@contextmanager
def translated() -> Iterator[None]:
    """Raise an error of the driver as BrokerUnavailable, with the error as its cause.

    Only calls of the driver belong inside. A cancellation of the calling task passes unchanged.
    """
    try:
        yield
    except asyncio.CancelledError as error:
        # aiormq also ends the calls of a dying connection with CancelledError.
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise BrokerUnavailable("the connection was closed") from error
    except Exception as error:
        # Broad on purpose: at the end of the stream aiormq rejects pending calls with a bare
        # Exception, and a closed channel or connection raises RuntimeError.
        raise _unavailable(error) from error


def _unavailable(error: Exception) -> BrokerUnavailable:
    if isinstance(error, InvalidFrameError) and "Connection.OpenOk" in str(error):
        # The driver drops the text of a Close that answers Open.
        return BrokerRefused("the vhost was refused: missing, not allowed, down or at its limit")
    reason = f"{type(error).__name__}: {error}".rstrip(": ")
    return BrokerRefused(reason) if _is_refusal(error) else BrokerUnavailable(reason)


def _is_refusal(error: Exception) -> bool:
    if isinstance(error, _REFUSALS):
        return True
    return isinstance(error, ConnectionClosed) and error.args[:1] in _REFUSAL_CODES
