-- Reads notifications that receipts have ended, in the transaction that ends them, for their events.
-- Parameters: $1 ids, $2 and $3 the least and the greatest of them.
-- Returns: one row per notification.
WITH ended AS (
    SELECT id, claim, status::text AS status, reason, tries, queue FROM ends
    WHERE id = ANY ($1::uuid[]) AND id BETWEEN $2 AND $3
)
-- :parts
SELECT id FROM ended
