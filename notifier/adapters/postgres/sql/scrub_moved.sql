-- Notes up to which notifications the contents of priorities are removed.
-- Parameters: $1 priorities, $2 the id.
UPDATE scrub_positions SET position = $2
WHERE priority = ANY ($1::text[]) AND position < $2
