"""Moves what waits or is being sent into `live`; notifications are written once from then on."""

from notifier.adapters.postgres.migrations.sql_script import run_sql_script

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Run 0005_live.sql. Refuses while a process of an older version runs."""
    run_sql_script(__file__)
