-- Reads what tells this database from every other one: the cluster's identifier and its own number.
-- Parameters: none.
-- Returns: one row. Raises insufficient_privilege where the role may not read the cluster's.
SELECT system_identifier, (SELECT oid FROM pg_database WHERE datname = current_database())::bigint
           AS database
FROM pg_control_system()
