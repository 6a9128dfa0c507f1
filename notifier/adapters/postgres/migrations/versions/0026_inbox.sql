-- The entries of the inboxes of users. Processes of the version before do not know the table: they
-- add none, and remove none that have expired.
--   id          of the notification
--   user_id     the notification's recipient
--   data        a JSON object
--   added       the transaction that added the entry
--   changed     the transaction that added or marked it last
CREATE TABLE inbox_entries (
    id uuid NOT NULL PRIMARY KEY,
    tenant text COLLATE "C" NOT NULL,
    mode text COLLATE "C" NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    subject text,
    body text NOT NULL,
    data text,
    created_at timestamptz NOT NULL DEFAULT now(),
    read_at timestamptz,
    expires_at timestamptz NOT NULL,
    added xid8 NOT NULL DEFAULT pg_current_xact_id(),
    changed xid8 NOT NULL DEFAULT pg_current_xact_id()
) WITH (fillfactor = 90);
CREATE INDEX inbox_entries_newest ON inbox_entries (tenant, mode, user_id, created_at, id);
CREATE INDEX inbox_entries_unread ON inbox_entries (tenant, mode, user_id, created_at, id)
    WHERE read_at IS NULL;
CREATE INDEX inbox_entries_changed ON inbox_entries (tenant, mode, user_id, changed);
CREATE INDEX inbox_entries_expires ON inbox_entries (expires_at);
