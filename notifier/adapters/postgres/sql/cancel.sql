-- Ends those of these notifications that wait as cancelled. One that is being sent stays.
-- Parameters: $1 ids, $2 the instant after which they may not have been accepted (null: none).
-- Returns: one row per notification that ended; `age_s` since it was accepted, in seconds.
-- Repeating it changes nothing.
-- (IS TRUE: see claim.sql.)
WITH waiting AS (
    SELECT id FROM live
    WHERE id = ANY ($1::uuid[]) AND claimed_by = '00000000-0000-0000-0000-000000000000'
      AND (expires_at > now()) IS TRUE AND ($2::timestamptz IS NULL OR created_at <= $2)
    ORDER BY id
    FOR UPDATE
), ended AS (
    DELETE FROM live
    WHERE id = ANY (ARRAY(SELECT id FROM waiting))
      AND claimed_by = '00000000-0000-0000-0000-000000000000'
    RETURNING id, claim, queue, tries, created_at
), kept AS (
    INSERT INTO ends (id, claim, status, queue, reason, tries, first_at, at)
    SELECT id, claim, 'cancelled', queue, 'request', tries, created_at, now() FROM ended e
    WHERE EXISTS (SELECT FROM notifications n WHERE n.id = e.id)
    ON CONFLICT (id) DO NOTHING
)
-- :parts
SELECT id, queue,
       CASE WHEN isfinite(created_at) THEN date_part('epoch', now() - created_at) ELSE 0 END AS age_s
FROM ended
