-- Reads whether the table of schema revisions exists and whether this role may read it.
-- Parameters: none.
-- Returns: one row.
SELECT to_regclass('alembic_version') IS NOT NULL AS is_there,
       coalesce(has_table_privilege(to_regclass('alembic_version'), 'SELECT'), false) AS may_read
