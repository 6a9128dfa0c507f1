"""Settings, read once at the command line into one frozen tree.

`load_settings` is the only place that looks at the environment; everything else gets values.
"""

from notifier.settings.convert import Text, convert_table
from notifier.settings.load import Loaded, load_settings, load_with_origins
from notifier.settings.secrets import masked
from notifier.settings.tree import (
    ApiSettings,
    BrokerSettings,
    ChannelSettings,
    DatabaseSettings,
    LogSettings,
    PrioritiesSettings,
    PrioritySettings,
    RetentionSettings,
    SandboxSettings,
    Settings,
    WorkerSettings,
)

__all__ = [
    "ApiSettings",
    "BrokerSettings",
    "ChannelSettings",
    "DatabaseSettings",
    "Loaded",
    "LogSettings",
    "PrioritiesSettings",
    "PrioritySettings",
    "RetentionSettings",
    "SandboxSettings",
    "Settings",
    "Text",
    "WorkerSettings",
    "convert_table",
    "load_settings",
    "load_with_origins",
    "masked",
]
