-- Reads the recipients of suppressions, which are not stored in events: they could not be erased.
-- Parameters: $1 ids.
-- Returns: one row per suppression that is stored.
SELECT id, recipient FROM suppressions WHERE id = ANY ($1::uuid[])
