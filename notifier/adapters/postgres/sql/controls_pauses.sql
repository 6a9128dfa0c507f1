-- All pauses that hold, their spans as of now; those that have expired are deleted on the way.
WITH expired AS (DELETE FROM pauses WHERE expires_at <= now())
SELECT kind::text AS kind, name, reason,
       extract(epoch FROM now() - paused_at)::float8 AS age_s,
       extract(epoch FROM expires_at - now())::float8 AS expires_in_s
FROM pauses WHERE expires_at IS NULL OR expires_at > now()
ORDER BY pauses.kind, name
