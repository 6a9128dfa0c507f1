"""The entry point of `notifier` and of `python -m notifier`."""

from __future__ import annotations

import sys

from notifier.cli.streams import open_missing_streams


def main() -> None:
    """Run the command line and exit with its exit code."""
    open_missing_streams()
    from notifier.cli.entry import run  # noqa: PLC0415 so that even this import is interruptible

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
