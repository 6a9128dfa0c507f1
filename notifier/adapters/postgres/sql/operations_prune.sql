-- Deletes operations of before a day that have ended, and the notes of retries of its notifications.
-- Parameters: $1 the day, $2 the maximum of rows of each.
WITH old AS (
    DELETE FROM operations WHERE id IN (
        SELECT id FROM operations
        WHERE id < uuid_at(day_start($1)) AND status <> 'running'
        ORDER BY id LIMIT $2
    )
    RETURNING id
), blobs_of_stopped AS (
    DELETE FROM erased_blobs WHERE operation IN (SELECT id FROM old)
)
DELETE FROM retries WHERE id IN (
    SELECT id FROM retries WHERE id < uuid_at(day_start($1)) ORDER BY id LIMIT $2
)
