-- Notes the notifications that an erasure must come back for.
-- Parameters: $1 id of the operation, $2 ids.
UPDATE operations SET ids = $2::uuid[] WHERE id = $1
