"""Proxies between our processes and their servers, one per connection path."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

from harness.stack import Place
from harness.system import System
from harness.tcp_proxy import LOOPBACK, Proxies, TcpProxy, open_proxies

SIDES: Final = ("api and workers", "api", "workers")


class ServerLinks(NamedTuple):
    """Proxies from one process to the servers."""

    postgres: TcpProxy
    rabbitmq: TcpProxy

    def environment(self, place: Place) -> dict[str, str]:
        """Return the environment of a process that connects through the proxies."""
        return {
            "NOTIFIER_DATABASE__URL": self.postgres.url(place.database),
            "NOTIFIER_BROKER__URL": self.rabbitmq.url(place.broker),
        }


class ProxiedLinks:
    """Proxies from the API and from each worker to each server, and to the provider."""

    def __init__(self, proxies: Proxies, system: System, place: Place) -> None:
        self._proxies, self._system, self._place = proxies, system, place
        self.api = self._open()
        self._workers: list[ServerLinks] = []
        self._http = proxies.open(LOOPBACK, system.http_port)
        self._smtp = proxies.open(LOOPBACK, system.smtp_port)

    def to_postgres(self, side: str) -> Sequence[TcpProxy]:
        return [links.postgres for links in self._of(side)]

    def to_rabbitmq(self, side: str) -> Sequence[TcpProxy]:
        return [links.rabbitmq for links in self._of(side)]

    def to_provider(self, _: str) -> Sequence[TcpProxy]:
        return [self._http, self._smtp]

    def open_worker(self) -> ServerLinks:
        """Open the proxies of a further worker."""
        self._workers.append(self._open())
        return self._workers[-1]

    def providers(self) -> dict[str, str]:
        """Return the environment of a worker that reaches the providers through the proxies."""
        sms, push = (
            str(self._system.providers[f"providers.{name}.url"]).replace(
                self._system.sandbox_url, f"http://{LOOPBACK}:{self._http.port}"
            )
            for name in ("twilio", "fcm")
        )
        return {
            "NOTIFIER_PROVIDERS__SMTP__PORT": str(self._smtp.port),
            "NOTIFIER_PROVIDERS__TWILIO__URL": sms,
            "NOTIFIER_PROVIDERS__FCM__URL": push,
        }

    def _of(self, side: str) -> Sequence[ServerLinks]:
        return {"api": [self.api], "workers": self._workers}.get(side, [self.api, *self._workers])

    def _open(self) -> ServerLinks:
        return ServerLinks(
            postgres=self._proxies.open_for(self._place.database),
            rabbitmq=self._proxies.open_for(self._place.broker),
        )


@asynccontextmanager
async def open_links(system: System, place: Place) -> AsyncIterator[ProxiedLinks]:
    async with open_proxies() as proxies:
        yield ProxiedLinks(proxies, system, place)
