-- Reads the operation that was stored with an idempotency key. A key that is too old is forgotten.
-- Parameters: $1 the digest of the key, $2 for how many seconds keys are kept.
-- Returns: the row, or none.
WITH forgotten AS (
    UPDATE operations SET key = NULL
    WHERE key = $1 AND created_at < now() - $2 * interval '1 second'
    RETURNING id
)
SELECT * FROM operations WHERE key = $1 AND id NOT IN (SELECT id FROM forgotten)
