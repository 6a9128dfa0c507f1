"""Every wire between our processes and what they stand on, each through a proxy that breaks."""

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
class StoreConnections:
    """From the API, and from all workers, to each server; to the provider from the workers."""

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
        """The environment of an API that has these links."""
        return _environment(place, self.api_postgres, self.api_rabbitmq)

    def of_worker(self, system: System, place: Place) -> dict[str, str]:
        """The environment of a worker that has these links."""
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
async def open_links(system: System, place: Place) -> AsyncIterator[StoreConnections]:
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        yield StoreConnections(
            api_postgres=await enter(open_proxy_for(place.database)),
            api_rabbitmq=await enter(open_proxy_for(place.broker)),
            postgres=await enter(open_proxy_for(place.database)),
            rabbitmq=await enter(open_proxy_for(place.broker)),
            provider_http=await enter(open_proxy(LOOPBACK, system.http_port)),
            provider_smtp=await enter(open_proxy(LOOPBACK, system.smtp_port)),
        )
