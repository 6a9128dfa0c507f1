"""The system under test: one running Notifier for all rounds of one fault."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from harness.client import open_client
from harness.run import Run
from harness.stack import Place, Stack
from harness.system import Child, System, running_system, urls
from harness.tcp_proxy import LOOPBACK, open_proxies
from harness.webhook_receiver import Receiver, open_receiver
from notifier.embedded.process import run_steps_async
from tests.chaos.earlier import export
from tests.chaos.links import ProxiedLinks, ServerLinks, open_links
from tests.chaos.trace import Trace

ROOT: Final = Path(__file__).resolve().parents[2]
ENTRY: Final = "tests.chaos.entry"
SETTINGS: Final[Mapping[str, object]] = {
    **{f"providers.{name}.timeout_s": 3 for name in ("smtp", "twilio", "fcm")},
    "providers.smtp.final_timeout_s": 3,
    **{
        f"priorities.{priority}.retry_{key}": value
        for priority in ("high", "medium", "low")
        for key, value in {"base_s": 0.5, "factor": 2, "cap_s": 4}.items()
    },
    **{f"priorities.{priority}.tries": 12 for priority in ("high", "medium", "low")},
    "worker.consumers": 128,
}
"""Retries that are short enough for a round and numerous enough to outlast a fault, and workers of
which one alone can send the load and a backlog: a recovery is not to wait for capacity."""
NEW: Final = frozenset({"providers.smtp.final_timeout_s"})
"""Settings that the earlier commit of an upgrade does not know."""
SMTP_PORT: Final = "NOTIFIER_PROVIDERS__SMTP__PORT"


@dataclass(slots=True, kw_only=True)
class Arena:
    """A running system that restarts its dead processes; `ended` lists the unexpected exits.

    `links_of` has the proxies of each worker by its pid. `environ` has further variables of the
    processes that it starts, `newer` those for this version after an upgrade. During an upgrade
    `mail_sessions` has what each connection sent to the mail server. `receiver` serves webhooks.
    """

    stack: Stack
    place: Place
    run: Run
    links: ProxiedLinks | None
    api: Child
    trace: Trace | None = None
    receiver: Receiver | None = None
    environ: dict[str, str] = field(default_factory=dict)
    newer: dict[str, str] = field(default_factory=dict)
    mail_sessions: Sequence[bytearray] = ()
    ended: list[str] = field(default_factory=list)
    links_of: dict[int, ServerLinks] = field(default_factory=dict)

    @property
    def system(self) -> System:
        return self.run.system

    async def start_api(self, **broken: str) -> None:
        """Start an API; a running one is stopped first."""
        if self.api.is_running:
            await run_steps_async(self.api.stopping())
        changed = _traced(self.trace) | broken
        self.api = _spawn_api(self.system, self.place, self.links, changed, self.environ)
        await run_steps_async(self.api.starting())

    def spawn_worker(self, *words: str, **broken: str) -> Child:
        """Start a worker without waiting; `broken` are variables for tests.chaos.entry."""
        changed = _traced(self.trace) | broken
        if not self.links:
            return self.system.spawn_worker(*words, **_through(changed), **self.environ, **changed)
        links = self.links.open_worker()
        linked = {**links.environment(self.place), **self.links.providers()}
        child = self.system.spawn_worker(*words, **_through(changed), **linked, **changed)
        self.links_of[child.pid] = links
        return child

    async def join(self, *words: str, **broken: str) -> Child:
        child = self.spawn_worker(*words, **broken)
        await run_steps_async(child.starting())
        self.run.workers.append(child)
        return child

    async def supervise(self) -> None:
        """Record the processes that exited unexpectedly and start them again."""
        for child in [self.api, *self.run.workers]:
            if not child.is_running:
                self.ended.append(f"{child.log.name}: {child.log_tail()[-2000:]}")
        if not self.api.is_running:
            await self.start_api()
        for child in [child for child in self.run.workers if not child.is_running]:
            self.run.workers.remove(child)
            await self.join()

    async def stop(self) -> None:
        """Stop all processes in reverse order without blocking the loop that runs the proxies."""
        for child in reversed(self.system.children):
            if child.is_running and child.has_started:
                await run_steps_async(child.stopping())


def _traced(trace: Trace | None) -> dict[str, str]:
    return {"CHAOS_TRACE": str(trace.path)} if trace else {}


def _through(broken: Mapping[str, str]) -> dict[str, str]:
    return {"module": ENTRY, "PYTHONPATH": str(ROOT)} if broken else {}


def _spawn_api(
    system: System,
    place: Place,
    links: ProxiedLinks | None,
    broken: Mapping[str, str],
    environ: Mapping[str, str],
) -> Child:
    linked = links.api.environment(place) if links else {}
    return system.spawn_api(**_through(broken), **linked, **environ, **broken)


def _migrate(system: System, environ: Mapping[str, str]) -> None:
    """Migrate the database by the command of another version."""
    done = system.run("migrate", **environ)
    assert done.returncode == 0, done.stderr


def _first_key(system: System) -> str:
    """Make a key of the deployment."""
    done = system.run("keys", "create", "--database")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@asynccontextmanager
async def open_arena(
    stack: Stack,
    *,
    workers: Sequence[Sequence[str]],
    linked: bool,
    traced: bool = False,
    keyed: bool = False,
    receives: bool = False,
    upgrades_from: str = "",
    **settings: object,
) -> AsyncIterator[Arena]:
    """Run sandbox, API and one worker per entry of `workers`, its arguments.

    `keyed`: the API asks for keys, and the client has one of the deployment. `receives`: there is a
    receiver of webhooks. With `upgrades_from` API and workers are those of that commit, on its
    schema.
    """
    async with AsyncExitStack() as exits:
        place = await exits.enter_async_context(stack.place(is_migrated=not upgrades_from))
        merged = {**urls(place.database, place.broker), **SETTINGS, **settings}
        if keyed:
            merged["api.auth"] = "keys"
        system = exits.enter_context(running_system(place.folder, merged))
        client = await exits.enter_async_context(open_client(system.api_url, system.sandbox_url))
        links = await exits.enter_async_context(open_links(system, place)) if linked else None
        await run_steps_async(system.spawn_sandbox().starting())
        trace = Trace(place.folder / "trace.jsonl") if traced else None
        receiver = await exits.enter_async_context(open_receiver()) if receives else None
        environ, newer = dict[str, str](), dict[str, str]()
        mail_sessions: Sequence[bytearray] = ()
        if upgrades_from:
            newer = system.take_out(NEW)
            mail_server = (await exits.enter_async_context(open_proxies())).open(
                LOOPBACK, system.smtp_port
            )
            mail_sessions = mail_server.record()
            newer[SMTP_PORT] = environ[SMTP_PORT] = str(mail_server.port)
            code = export(upgrades_from, stack.folder / f"code-{upgrades_from[:12]}")
            environ["PYTHONPATH"] = str(code)
            _migrate(system, environ)
        if keyed:
            client.key = _first_key(system)
        api = _spawn_api(system, place, links, _traced(trace), environ)
        run = Run(system, client, place.database, place.broker)
        arena = Arena(
            stack=stack,
            place=place,
            run=run,
            links=links,
            api=api,
            trace=trace,
            receiver=receiver,
            environ=environ,
            newer=newer,
            mail_sessions=mail_sessions,
        )
        for words in workers:
            await arena.join(*words)
        await run_steps_async(api.starting())
        yield arena
        await arena.stop()
