-- Ends those of these rows that are unclaimed and whose expires_at has passed as expired. A row that
-- another process has locked is left out.
-- Parameters: $1 ids.
-- Returns: one row per expired notification; `age_s` since it was accepted, in seconds.
-- Repeating it changes nothing.
-- (IS TRUE: see claim.sql.)
WITH over AS (
    SELECT id FROM live
    WHERE id = ANY ($1::uuid[])
      AND claimed_by = '00000000-0000-0000-0000-000000000000' AND (expires_at <= now()) IS TRUE
    FOR UPDATE SKIP LOCKED
), ended AS (
    DELETE FROM live
    WHERE id = ANY (ARRAY(SELECT id FROM over))
      AND claimed_by = '00000000-0000-0000-0000-000000000000' AND (expires_at <= now()) IS TRUE
    RETURNING id, claim, queue, tries, created_at
), kept AS (
    INSERT INTO ends (id, claim, status, queue, tries, first_at, at)
    SELECT id, claim, 'expired', queue, tries, created_at, now() FROM ended e
    WHERE EXISTS (SELECT FROM notifications n WHERE n.id = e.id)
    ON CONFLICT (id) DO NOTHING
)
-- :parts
SELECT id, queue,
       CASE WHEN isfinite(created_at) THEN date_part('epoch', now() - created_at) ELSE 0 END AS age_s
FROM ended
