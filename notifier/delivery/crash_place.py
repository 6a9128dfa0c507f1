"""What the log says of an exception that is a defect: nothing of its message, which may quote."""

from __future__ import annotations

import traceback


def type_and_place(error: Exception) -> str:
    """Return the type of an exception that was raised, and the file and line that raised it."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at {last.filename}:{last.lineno}"
