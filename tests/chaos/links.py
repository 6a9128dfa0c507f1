"""Proxies between our processes and their servers, one per connection path."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

from harness.stack import Place
from harness.system import System
from harness.tcp_proxy import LOOPBACK, TcpProxy, open_proxy, open_proxy_for

SIDES: Final = ("api and workers", "api", "workers")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxiedLinks:
    """Proxies from the API and the workers to each server, and from the workers to the provider."""

    api_postgres: TcpProxy
    api_rabbitmq: TcpProxy
    postgres: TcpProxy
    rabbitmq: TcpProxy
    provider_http: TcpProxy
    provider_smtp: TcpProxy

    def to_postgres(self, side: str) -> Sequence[TcpProxy]:
        return _of(side, api=self.api_postgres, workers=self.postgres)

    def to_rabbitmq(self, side: str) -> Sequence[TcpProxy]:
        return _of(side, api=self.api_rabbitmq, workers=self.rabbitmq)

    def to_provider(self, _: str) -> Sequence[TcpProxy]:
        return [self.provider_http, self.provider_smtp]

    def of_api(self, place: Place) -> dict[str, str]:
        """Return the environment of an API that connects through the proxies."""
        return _environment(place, self.api_postgres, self.api_rabbitmq)

    def of_worker(self, system: System, place: Place) -> dict[str, str]:
        """Return the environment of a worker that connects through the proxies."""
        sms, push = (
            str(system.providers[f"providers.{name}.url"]).replace(
                system.sandbox_url, f"http://{LOOPBACK}:{self.provider_http.port}"
            )
            for name in ("twilio", "fcm")
        )
        return {
            **_environment(place, self.postgres, self.rabbitmq),
            "NOTIFIER_PROVIDERS__SMTP__PORT": str(self.provider_smtp.port),
            "NOTIFIER_PROVIDERS__TWILIO__URL": sms,
            "NOTIFIER_PROVIDERS__FCM__URL": push,
        }


def _of(side: str, *, api: TcpProxy, workers: TcpProxy) -> Sequence[TcpProxy]:
    return {"api": [api], "workers": [workers]}.get(side, [api, workers])


def _environment(place: Place, postgres: TcpProxy, rabbitmq: TcpProxy) -> dict[str, str]:
    return {
        "NOTIFIER_DATABASE__URL": postgres.url(place.database),
        "NOTIFIER_BROKER__URL": rabbitmq.url(place.broker),
    }


@asynccontextmanager
async def open_links(system: System, place: Place) -> AsyncIterator[ProxiedLinks]:
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        yield ProxiedLinks(
            api_postgres=await enter(open_proxy_for(place.database)),
            api_rabbitmq=await enter(open_proxy_for(place.broker)),
            postgres=await enter(open_proxy_for(place.database)),
            rabbitmq=await enter(open_proxy_for(place.broker)),
            provider_http=await enter(open_proxy(LOOPBACK, system.http_port)),
            provider_smtp=await enter(open_proxy(LOOPBACK, system.smtp_port)),
        )
