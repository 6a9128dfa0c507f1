"""Called by alembic: runs the migrations on the connection that migrate.py opened, under a lock."""

from alembic import context
from sqlalchemy import text

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=None)
with context.begin_transaction():
    connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('notifier.migrate'))"))
    context.run_migrations()
