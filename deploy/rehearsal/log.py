"""Progress lines of the rehearsal."""

from __future__ import annotations

import sys
import time


def log(line: str) -> None:
    """Print one line with the time to stderr."""
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)
