"""Measures submits per second with a key against without: `python -m benchmarks.key_cost`.

Two API processes work on one database; wrk calls them in turn, so that a change of the machine's
speed concerns both. What is stored waits: no worker runs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.bench.children import run_to_end
from benchmarks.bench.submitting import CONNECTIONS, SCRIPT
from harness.stack import Place, running_stack
from harness.system import System, running_system, urls

SPAN_S: Final = 5
WITHOUT: Final = "no keys"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.key_cost", description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="notifier-keys-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        found = asyncio.run(_measure(folder, rounds))
    base = median(found[WITHOUT])
    for kind, rates in found.items():
        ratios = [one / other for one, other in zip(rates, found[WITHOUT], strict=True)]
        middle = median(ratios)
        sys.stdout.write(f"{kind:>20}: {median(rates):7,.0f}/s  {middle:.3f} x of {base:,.0f}/s\n")
    return 0


async def _measure(folder: Path, rounds: int) -> Mapping[str, list[float]]:
    with running_stack(folder) as stack:
        async with stack.place() as place:
            return await asyncio.to_thread(_measure_place, place, folder, rounds)


def _measure_place(place: Place, folder: Path, rounds: int) -> Mapping[str, list[float]]:
    with _api(place, folder / "open", "off") as open_api, _api(place, folder / "k", "keys") as api:
        targets = {
            WITHOUT: (open_api.api_url, ""),
            "a key": (api.api_url, _key(api)),
            "a key with a rate": (api.api_url, _key(api, "--rate", "100000")),
        }
        found: dict[str, list[float]] = {kind: [] for kind in targets}
        for _ in range(rounds):
            for kind, (url, key) in targets.items():
                found[kind].append(_wrk(folder, url, key))
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


def _wrk(folder: Path, url: str, key: str) -> float:
    script = folder / "submit.lua"
    line = f'wrk.headers["Authorization"] = "Bearer {key}"\n' if key else ""
    script.write_text(SCRIPT.read_text() + line)
    how = ["-t1", f"-c{CONNECTIONS}", f"-d{SPAN_S}s", "--timeout", "10s", "-s", str(script)]
    said = run_to_end(["wrk", *how, f"{url}/v1/notifications"], {}, SPAN_S + 30)
    seen = json.loads(said.splitlines()[-1])
    if seen["errors"]:
        raise RuntimeError(f"{seen['errors']} of {seen['requests']} were not answered with 202")
    return float(seen["requests"] / seen["duration_us"] * 1e6)


if __name__ == "__main__":
    sys.exit(main())
