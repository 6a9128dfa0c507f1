-- Reads the processes that have sent a heartbeat in the last minute.
-- Parameters: none.
-- Returns: one row per process, the oldest first.
SELECT id, kind, host, pid, started_at, beat_at, figures::text AS figures
FROM workers WHERE beat_at > now() - interval '1 minute'
ORDER BY started_at, id
