-- Reads how many notifications recipients have had on this day.
-- Parameters: $1 hashes.
-- Returns: one row per recipient that has had any.
SELECT hash, count FROM recipient_counts
WHERE hash = ANY ($1::uuid[]) AND day = (now() AT TIME ZONE 'UTC')::date
