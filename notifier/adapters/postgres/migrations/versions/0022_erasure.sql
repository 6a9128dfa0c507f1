-- collapse_keys:
--   key  from now on a hash with the key in `secrets`, of tenant, mode, channel, recipient and key
-- Their plain hashes let recipients be guessed. What waits now is replaced by nothing newer.
DELETE FROM collapse_keys;

-- Notifications that are stored from now on have lookups of their files, of the kind `file`. Of those
-- of before nobody can tell which files only they have.
INSERT INTO lookup_starts (kind) SELECT 'file' WHERE EXISTS (SELECT FROM notifications);

-- Blobs that no notification refers to since one was erased. They are removed some minutes later if
-- nobody has used them meanwhile: see erase_blobs.sql.
--   last_day  as in `blobs`, after the erasure; a greater one there means that it was used since
--   lookups   of its users, in both modes
CREATE TABLE erased_blobs (
    operation uuid NOT NULL,
    tenant text NOT NULL,
    hash bytea NOT NULL,
    last_day date NOT NULL,
    lookups uuid[] NOT NULL,
    due_at timestamptz NOT NULL,
    PRIMARY KEY (operation, tenant, hash)
);

-- Up to which id the contents of a priority are removed, or are noted in scrub_later.
CREATE TABLE scrub_positions (
    priority text NOT NULL PRIMARY KEY,
    position uuid NOT NULL
);
INSERT INTO scrub_positions (priority, position)
SELECT priority, '00000000-0000-0000-0000-000000000000'
FROM unnest(ARRAY['high', 'medium', 'low']) AS t (priority);

-- Notifications before these positions whose contents are still needed, and when to look at them
-- again.
CREATE TABLE scrub_later (
    id uuid NOT NULL PRIMARY KEY,
    due_at timestamptz NOT NULL
) WITH (vacuum_truncate = off);
CREATE INDEX scrub_later_due ON scrub_later (due_at);
