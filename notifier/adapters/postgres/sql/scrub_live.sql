-- Whether any of these notifications waits or is being sent.
-- Parameters: $1 ids.
SELECT EXISTS (SELECT FROM live WHERE id = ANY ($1::uuid[])) AS is_any
