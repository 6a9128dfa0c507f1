"""The settings: loaded once by the command line into one frozen tree.

Only `load_settings` reads files and variables; all other code gets values.
"""

from notifier.settings.convert import convert_table
from notifier.settings.load import Loaded, load_settings, load_with_origins
from notifier.settings.secrets import masked
from notifier.settings.tree import ApiSettings, LogSettings, Settings, WorkerSettings

__all__ = [
    "ApiSettings",
    "Loaded",
    "LogSettings",
    "Settings",
    "WorkerSettings",
    "convert_table",
    "load_settings",
    "load_with_origins",
    "masked",
]
