"""Measures submits per second with keys against without: `python -m benchmarks.key_cost`.

Two API processes work on one database; wrk calls them in turn, so that a change of the machine's
speed concerns both. The processor time of the API a submit is the steadier figure where other
programs run. What is stored waits: no worker runs.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple
from uuid import uuid4

from benchmarks.bench.submitting import SCRIPT, wrk
from benchmarks.prove.processors import cpu_s
from harness.stack import Place, running_stack
from harness.system import System, running_system, urls

SPAN_S: Final = 5
WITHOUT: Final = "no keys"
IDEMPOTENT: Final = "a key, and keys of idempotency"
REQUEST: Final = """
local sent = 0
function request()
  sent = sent + 1
  wrk.headers["Idempotency-Key"] = "%s-" .. sent
  return wrk.format()
end
"""
"""Gives each submit another idempotency key."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.key_cost", description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="notifier-keys-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        found = asyncio.run(_measure(folder, rounds))
    for kind, spans in found.items():
        pairs = list(zip(spans, found[WITHOUT], strict=True))
        per_s = median(one.per_s / other.per_s for one, other in pairs)
        cpu_s = median(one.cpu_s / other.cpu_s for one, other in pairs)
        rate = median(span.per_s for span in spans)
        cpu_us = median(span.cpu_s for span in spans) * 1e6
        sys.stdout.write(
            f"{kind:>30}: {rate:7,.0f}/s ({per_s:.3f} x), {cpu_us:.0f} us of the API each "
            f"({1 / cpu_s:.3f} x as many)\n"
        )
    return 0


class Span(NamedTuple):
    """Submits per second, and seconds of the API's processor time for each."""

    per_s: float
    cpu_s: float


async def _measure(folder: Path, rounds: int) -> Mapping[str, list[Span]]:
    with running_stack(folder) as stack:
        async with stack.place() as place:
            return _measure_place(place, folder, rounds)


def _measure_place(place: Place, folder: Path, rounds: int) -> Mapping[str, list[Span]]:
    with _api(place, folder / "open", "off") as open_api, _api(place, folder / "k", "keys") as api:
        targets = {
            WITHOUT: (open_api, ""),
            "a key": (api, _key(api)),
            "a key with a rate": (api, _key(api, "--rate", "100000")),
            IDEMPOTENT: (api, _key(api)),
        }
        found: dict[str, list[Span]] = {kind: [] for kind in targets}
        for _ in range(rounds):
            for kind, (system, key) in targets.items():
                found[kind].append(_span(folder, system, key, is_keyed=kind == IDEMPOTENT))
    return found


@contextmanager
def _api(place: Place, folder: Path, auth: str) -> Iterator[System]:
    settings = urls(place.database, place.broker) | {"api.auth": auth, "log.level": "warning"}
    with running_system(folder, settings) as system:
        system.start_api()
        yield system


def _key(system: System, *words: str) -> str:
    done = system.run("keys", "create", "--database", "--scope", "submit", *words)
    return done.stdout.strip()


def _span(folder: Path, system: System, key: str, *, is_keyed: bool) -> Span:
    script, pid = folder / "submit.lua", system.children[0].pid
    text = SCRIPT.read_text()
    if key:
        text += f'wrk.headers["Authorization"] = "Bearer {key}"\n'
    if is_keyed:
        text += REQUEST % uuid4()
    script.write_text(text)
    before_s = cpu_s(pid)
    seen = wrk(system.api_url, SPAN_S, script)
    return Span(seen["per_s"], (cpu_s(pid) - before_s) / seen["requests"])


if __name__ == "__main__":
    sys.exit(main())
