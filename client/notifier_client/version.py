"""The version, that of Notifier with which it is released."""

from __future__ import annotations

__version__ = "0.1.0"
