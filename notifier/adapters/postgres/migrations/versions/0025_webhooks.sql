-- URLs that are called with events. Processes of the version before do not know the tables, nor the
-- channel of the calls: they turn no events into calls, and call no webhook.
--   tenant          null: a webhook of the deployment
--   events          types of events, or notification.*
--   reason          why it is disabled; '': it is not
--   secret          signs the calls; each of old_secrets signs them, too, until its old_secrets_until
--   failing_since   when its calls began to fail; null: the last one succeeded
CREATE TABLE webhooks (
    id uuid NOT NULL PRIMARY KEY,
    tenant text COLLATE "C",
    mode text NOT NULL,
    url text NOT NULL,
    events text[] NOT NULL,
    status text NOT NULL,
    reason text NOT NULL DEFAULT '',
    note text NOT NULL,
    secret bytea NOT NULL,
    old_secrets bytea[] NOT NULL DEFAULT '{}',
    old_secrets_until timestamptz[] NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    last_success_at timestamptz,
    last_failure_at timestamptz,
    failing_since timestamptz
) WITH (fillfactor = 70, vacuum_truncate = off);
CREATE INDEX webhooks_tenant ON webhooks (tenant, mode);

-- How far events were turned into calls of webhooks, in one row. One process at a time does it.
--   cursor      of the events (domain/event_cursor.py); null: not begun
--   holder      the process that does it, until held_until
--   waiting     how many calls waited or were being made, when they were counted last
CREATE TABLE webhook_fanout (
    id integer NOT NULL PRIMARY KEY,
    cursor text,
    holder uuid,
    held_until timestamptz NOT NULL DEFAULT '-infinity',
    waiting bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 10, vacuum_truncate = off);
INSERT INTO webhook_fanout (id) VALUES (1);
