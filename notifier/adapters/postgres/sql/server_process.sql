-- Reads which process of the server runs this session.
-- Parameters: none.
-- Returns: one row.
SELECT pg_backend_pid() AS pid
