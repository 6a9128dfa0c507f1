-- Removes an erased recipient, and what the provider wrote of it, from receipts that have no
-- notification yet. They still settle a notification that they belong to.
-- Parameters: $1 providers, $2 keys.
-- Repeating it changes nothing.
UPDATE receipts_unmatched u SET recipient = NULL, detail = ''
FROM unnest($1::text[], $2::uuid[]) AS t (provider, key)
WHERE u.provider = t.provider AND u.key = t.key AND (u.recipient IS NOT NULL OR u.detail <> '')
