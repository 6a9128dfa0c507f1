-- Fails a row whose claim Postgres rejects because of the row's data. The row must still be
-- unclaimed at the requested claim, which stays.
-- Parameters: $1 id, $2 claim, $3 provider, $4 this worker's id or the nil UUID: who has claimed it.
-- Returns: one row if the row was deleted; `age_s` since it was accepted, in seconds.
-- Repeating it changes nothing.
-- (Nothing is computed from the row's data, except from a finite created_at, and content is not
-- read: what made the claim raise cannot make this raise.)
WITH failed AS (
    DELETE FROM live WHERE id = $1 AND claim = $2 AND claimed_by = $4
    RETURNING id, claim, queue, tries, created_at
), kept AS (
    INSERT INTO ends (id, claim, status, queue, reason, provider, code, detail, tries, first_at, at)
    SELECT f.id, f.claim, 'failed', f.queue, 'poison', $3, 'claim_rejected',
           'Postgres rejected the claim of the row', f.tries,
           least(now(), (SELECT min(a.started_at) FROM attempts a WHERE a.id = f.id)), now()
    FROM failed f
    WHERE EXISTS (SELECT FROM notifications n WHERE n.id = $1)
    ON CONFLICT (id) DO NOTHING
)
-- :parts
SELECT CASE WHEN isfinite(created_at) THEN date_part('epoch', now() - created_at) ELSE 0 END AS age_s
FROM failed
