-- Removes the counts of the days before yesterday.
-- Parameters: $1 the maximum number of rows.
-- Repeating it continues with the next ones.
DELETE FROM recipient_counts
WHERE ctid = ANY (ARRAY(SELECT ctid FROM recipient_counts
                        WHERE day < (now() AT TIME ZONE 'UTC')::date - 1 LIMIT $1))
