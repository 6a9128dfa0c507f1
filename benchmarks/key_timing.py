"""Measures whether a wrong key is refused sooner the earlier its secret is wrong.

`python -m benchmarks.key_timing` compares keys that share 0 to 42 characters of the secret, and
other wrong texts, in turn, so that a change of the machine's speed concerns all of them.
"""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from statistics import quantiles
from typing import Final

from notifier.domain.credentials import ENTROPY_BYTES, Credential, Mode, new_credential
from notifier.domain.keys import Key, find_key

ROUNDS: Final = 20_000
CALLS: Final = 10


def _sharing(right: Credential, count: int) -> str:
    """A key whose secret begins with `count` right characters."""
    wrong = "".join("1" if character == "0" else "0" for character in right.secret)
    return Credential(right.mode, right.id, right.secret[:count] + wrong[count:]).text


def main() -> None:
    right, other = (new_credential(Mode.LIVE, os.urandom(ENTROPY_BYTES)) for _ in range(2))
    key = Key(
        id=right.id,
        digest=right.digest,
        tenant=None,
        mode=right.mode,
        scopes=(),
        created_at=datetime.now(UTC),
    )
    keys = {key.id: key}
    texts = {f"{count} right": _sharing(right, count) for count in (0, 1, 10, 21, 32, 42)}
    texts |= {"right": right.text, "unknown id": other.text, "no key": "x" * len(right.text)}
    taken: dict[str, list[int]] = {name: [] for name in texts}
    for _ in range(ROUNDS):
        for name, text in texts.items():
            began = time.perf_counter_ns()
            for _ in range(CALLS):
                find_key(text, keys)
            taken[name].append(time.perf_counter_ns() - began)
    for name, spans in taken.items():
        low, middle, high = quantiles(spans, n=4)
        print(
            f"{name:>10}: {middle / CALLS:7.0f} ns  (quartiles {low / CALLS:.0f} to "
            f"{high / CALLS:.0f})"
        )


if __name__ == "__main__":
    main()
