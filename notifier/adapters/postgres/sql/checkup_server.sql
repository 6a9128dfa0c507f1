-- Reads the server's version, the session's settings and the connections of other programs.
-- Parameters: none.
-- Returns: one row. `connections` is how many this role may open. `others` counts the sessions
-- whose application_name is not `notifier`: a role that may not read all of pg_stat_activity still
-- sees the name of every session.
SELECT
    current_setting('server_version_num')::integer / 10000 AS major,
    current_setting('server_version') AS version,
    pg_is_in_recovery() OR current_setting('default_transaction_read_only')::boolean AS is_read_only,
    current_setting('synchronous_commit') AS synchronous_commit,
    current_user AS role,
    least(
        current_setting('max_connections')::integer
            - current_setting('superuser_reserved_connections')::integer
            - coalesce(current_setting('reserved_connections', true)::integer, 0),
        (SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user AND rolconnlimit >= 0),
        (SELECT datconnlimit FROM pg_database WHERE datname = current_database() AND datconnlimit >= 0)
    ) AS connections,
    (SELECT count(*)::integer FROM pg_stat_activity
     WHERE datid IS NOT NULL AND usesysid IS NOT NULL AND application_name <> 'notifier') AS others
