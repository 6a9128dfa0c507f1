-- Takes the recipient, the note and the notification from suppressions of erased recipients. They stay
-- as keyed hashes, so that nobody gets what he or she has refused.
-- Parameters: $1 hashes, $2 channels (null: any), $3 the instant after which they may not have been
-- made.
-- Repeating it changes nothing.
UPDATE suppressions SET recipient = NULL, note = '', notification = NULL, reason = 'erased'
WHERE hash = ANY ($1::uuid[]) AND ($2::text[] IS NULL OR channel = ANY ($2)) AND created_at <= $3
