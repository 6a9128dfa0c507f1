-- Reads all pauses in force, as controls_pauses.sql does, and deletes none.
-- Parameters: none.
-- Returns: one row per pause; `age_s` and `expires_in_s` in seconds as of now, the latter null for
-- a pause without an end.
SELECT kind::text AS kind, name, reason AS note, paused_at, expires_at,
       extract(epoch FROM now() - paused_at)::float8 AS age_s,
       extract(epoch FROM expires_at - now())::float8 AS expires_in_s
FROM pauses WHERE expires_at IS NULL OR expires_at > now()
UNION ALL
SELECT kind, name, note, since, until, extract(epoch FROM now() - since)::float8,
       extract(epoch FROM until - now())::float8
FROM holds WHERE until IS NULL OR until > now()
ORDER BY kind, name
