-- Ends the unclaimed rows whose expires_at has passed as expired.
-- Parameters: $1 the maximum number of rows.
-- Returns: one row per expired notification; `age_s` since it was accepted, in seconds.
-- Repeating it expires the next rows.
-- (IS TRUE: see claim.sql. isfinite: one row that raises would keep all others from expiring.)
WITH over AS (
    SELECT id FROM live
    WHERE expires_at <= now() AND claimed_by = '00000000-0000-0000-0000-000000000000'
    ORDER BY expires_at
    LIMIT $1
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
SELECT queue, CASE WHEN isfinite(created_at) THEN date_part('epoch', now() - created_at) ELSE 0 END
           AS age_s
FROM ended
