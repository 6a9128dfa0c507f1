"""Called by alembic: runs the migrations on the connection that migrate.py opened, under a lock.

A table's lock that is not free is waited for briefly: all statements of the running processes queue
behind such a wait. migrate.py repeats what was undone.
"""

from alembic import context
from sqlalchemy import text

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=None)
with context.begin_transaction():
    connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('notifier.migrate'))"))
    connection.execute(text("SET LOCAL lock_timeout = '200ms'"))
    context.run_migrations()
