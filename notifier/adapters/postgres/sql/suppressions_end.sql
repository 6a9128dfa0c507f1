-- Ends those of these notifications that wait as suppressed. A row that another process has locked is
-- left out.
-- Parameters: $1 ids, $2 reasons.
-- Returns: one row per notification that ended; `age_s` since it was accepted, in seconds.
-- Repeating it changes nothing.
WITH waiting AS (
    SELECT id FROM live
    WHERE id = ANY ($1::uuid[]) AND claimed_by = '00000000-0000-0000-0000-000000000000'
    FOR UPDATE SKIP LOCKED
), ended AS (
    DELETE FROM live
    WHERE id = ANY (ARRAY(SELECT id FROM waiting))
      AND claimed_by = '00000000-0000-0000-0000-000000000000'
    RETURNING id, claim, queue, tries, created_at
), kept AS (
    INSERT INTO ends (id, claim, status, queue, reason, tries, first_at, at)
    SELECT e.id, e.claim, 'suppressed', e.queue, t.reason, e.tries, e.created_at, now()
    FROM ended e JOIN unnest($1::uuid[], $2::text[]) AS t (id, reason) USING (id)
    WHERE EXISTS (SELECT FROM notifications n WHERE n.id = e.id)
    ON CONFLICT (id) DO NOTHING
)
-- :parts
SELECT id, queue,
       CASE WHEN isfinite(created_at) THEN date_part('epoch', now() - created_at) ELSE 0 END AS age_s
FROM ended
