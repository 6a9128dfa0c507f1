-- Removes the blobs that an erasure has noted long enough ago, unless they have been used since.
-- Parameters: $1 id of the operation.
-- Returns: how many blobs are `remaining`, to be looked at later.
-- (A submit that looks a blob up at this moment raises `last_day` or finds no blob: see
-- blobs_keep.sql.)
WITH due AS MATERIALIZED (
    SELECT * FROM erased_blobs WHERE operation = $1 AND due_at <= now()
), removed AS (
    DELETE FROM blobs b USING due d
    WHERE b.tenant = d.tenant AND b.hash = ANY (ARRAY(SELECT hash FROM due)) AND b.hash = d.hash
      AND b.last_day <= d.last_day
      AND (SELECT id FROM lookups WHERE hash = d.lookups[1] LIMIT 1) IS NULL
      AND (SELECT id FROM lookups WHERE hash = d.lookups[2] LIMIT 1) IS NULL
      AND NOT EXISTS (SELECT FROM schedules s WHERE s.tenant = d.tenant AND d.hash = ANY (s.blobs))
      -- A fallback that waits has no lookups: its submit is read, if it has files.
      AND NOT EXISTS (SELECT FROM fallbacks f
                      WHERE f.look_at IS NOT NULL
                        AND f.needs && ARRAY['content.attachments', 'content.mime']
                        AND position(convert_to('"sha256:' || encode(d.hash, 'hex'), 'UTF8') IN f.submit) > 0)
), done AS (
    DELETE FROM erased_blobs e USING due d
    WHERE e.operation = $1 AND e.tenant = d.tenant AND e.hash = d.hash
)
SELECT (SELECT count(*) FROM erased_blobs WHERE operation = $1) - (SELECT count(*) FROM due) AS remaining
