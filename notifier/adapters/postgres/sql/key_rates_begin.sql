-- Makes the rows of keys whose rate has not been used yet: full buckets.
-- Parameters: $1 keys.
-- Returns: nothing.
INSERT INTO key_rates (key, tat)
SELECT key, to_timestamp(0) FROM unnest($1::text[]) AS t (key) ORDER BY key
ON CONFLICT DO NOTHING
