-- Reads all pauses of tags and tenants that are in force, and deletes the expired ones.
-- Parameters: none.
-- Returns: one row per pause, as controls_pauses.sql does.
WITH expired AS (DELETE FROM holds WHERE until <= now())
SELECT kind, name, note, since AS paused_at, until AS expires_at,
       extract(epoch FROM now() - since)::float8 AS age_s,
       extract(epoch FROM until - now())::float8 AS expires_in_s
FROM holds WHERE until IS NULL OR until > now()
ORDER BY kind, name
