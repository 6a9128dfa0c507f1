-- Moves on how far events were turned into calls, and locks the row until the end of the transaction.
-- Parameters: $1 this process, $2 the cursor before (null: not begun), $3 the cursor after.
-- Returns: one row, if this process has the right and the cursor was that.
UPDATE webhook_fanout SET cursor = $3
WHERE holder = $1 AND held_until > now() AND cursor IS NOT DISTINCT FROM $2
RETURNING id
