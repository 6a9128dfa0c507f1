-- Removes blobs that no stored notification refers to: those that were last needed two days before
-- the oldest day that is kept. A notification may be of the day after the one that its blob was
-- kept for, by the clocks of other machines or over midnight. The files of schedules stay.
-- Parameters: $1 the oldest day that is kept, $2 how many blobs are removed at most, $3 after how
-- many bytes no further one is removed.
-- Returns: one row per removed blob.
WITH old AS (
    SELECT tenant, hash, sum(size) OVER (ORDER BY last_day, tenant, hash) - size AS before
    FROM (SELECT tenant, hash, last_day, size FROM blobs o
          WHERE last_day < $1::date - 2
            AND NOT EXISTS (SELECT FROM schedules s
                            WHERE s.tenant = o.tenant AND o.hash = ANY (s.blobs))
          ORDER BY last_day LIMIT $2) AS oldest
)
DELETE FROM blobs b USING old
WHERE b.tenant = old.tenant AND b.hash = old.hash AND old.before < $3
  AND b.last_day < $1::date - 2
RETURNING 1
