-- Replaces an erased recipient in receipts that have no notification yet, and removes what the provider
-- wrote of it. They still settle a notification that they belong to, unless they are of a copy of it.
-- Parameters: $1 providers, $2 keys, $3 what stands in place of each recipient.
-- Repeating it changes nothing.
UPDATE receipts_unmatched u SET recipient = t.recipient, detail = ''
FROM unnest($1::text[], $2::uuid[], $3::text[]) AS t (provider, key, recipient)
WHERE u.provider = t.provider AND u.key = t.key
