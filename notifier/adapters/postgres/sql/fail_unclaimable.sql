-- Fails a row whose claim Postgres rejects because of the row's data. The row must still be queued
-- at the requested claim, which stays.
-- Parameters: $1 id, $2 claim, $3 provider.
-- Returns: one row if the notification changed; `age_s` since it was accepted, in seconds.
-- Repeating it changes nothing.
-- (Nothing is computed from the row's data, except from a finite created_at, and content is not
-- read: what made the claim raise cannot make this raise.)
WITH failed AS (
    UPDATE notifications SET
        status = 'failed', due_at = NULL, last_error = 'claim_rejected', updated_at = now()
    WHERE id = $1 AND status::text = 'queued' AND claim = $2
    RETURNING id, queue, tries, created_at
), kept AS (
    INSERT INTO failures (id, queue, provider, reason, code, detail, tries, first_at, last_at)
    SELECT f.id, f.queue, $3, 'poison', 'claim_rejected', 'Postgres rejected the claim of the row',
           f.tries, least(now(), (SELECT min(a.started_at) FROM attempts a WHERE a.id = f.id)),
           now()
    FROM failed f
    ON CONFLICT (id) DO UPDATE SET
        provider = excluded.provider, reason = excluded.reason, code = excluded.code,
        detail = excluded.detail, tries = excluded.tries, last_at = excluded.last_at
)
SELECT CASE WHEN isfinite(created_at) THEN date_part('epoch', now() - created_at) ELSE 0 END AS age_s
FROM failed
