-- Drops fallbacks that wait, and what they would submit: their recipient is erased, or that of the first
-- notification wants no more.
-- Parameters: $1 ids.
-- Repeating it changes nothing. One that a process submits at this moment stays submitted.
UPDATE fallbacks SET look_at = NULL, submit = NULL
WHERE id = ANY (ARRAY(SELECT id FROM fallbacks WHERE id = ANY ($1::uuid[]) ORDER BY id FOR UPDATE))
  AND (look_at IS NOT NULL OR submit IS NOT NULL)
