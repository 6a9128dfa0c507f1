-- Finds which notifications a reader may see.
-- Parameters: $1 ids, $2 and $3 the least and the greatest of them, $4 the tenant (null: any), $5
-- whether those of test keys are seen, or the others, $6 channels, one of which a test must have asked
-- for (null: any), $7 whether calls of webhooks and entries of inboxes are seen, too.
-- Returns: one row per notification.
SELECT id FROM notifications
WHERE id = ANY ($1::uuid[]) AND id BETWEEN $2 AND $3
  AND ($4::text IS NULL OR tenant = $4) AND (test_channel <> '') = $5
  AND ($6::text[] IS NULL OR test_channel = ANY ($6))
  AND ($7 OR queue NOT LIKE 'webhook.%' AND queue NOT LIKE 'inbox.%')
