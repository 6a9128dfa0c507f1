-- One row for each recipient to whom nothing may be sent on a channel, or nothing of a topic.
--   hash          of tenant, mode and recipient, as in `lookups`
--   topic         '': all topics
--   recipient     in its normal form; null if only the hash is known
--   notification  the one by which it was asked for
--   pass          how often waiting notifications were looked for and ended
--   pass_at       when they are looked for next; null: no more
CREATE TABLE suppressions (
    id uuid NOT NULL PRIMARY KEY,
    hash uuid NOT NULL,
    tenant text NOT NULL,
    mode text NOT NULL,
    channel text NOT NULL,
    topic text NOT NULL,
    recipient text,
    reason text NOT NULL,
    note text NOT NULL,
    notification uuid,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    pass smallint NOT NULL DEFAULT 0,
    pass_at timestamptz DEFAULT now()
);
CREATE UNIQUE INDEX suppressions_hash ON suppressions (hash, channel, topic);
CREATE INDEX suppressions_list ON suppressions (tenant, mode, id);
CREATE INDEX suppressions_pass ON suppressions (pass_at) WHERE pass_at IS NOT NULL;

-- Since when notifications have had lookups of a kind. Without a row some may have none.
CREATE TABLE lookup_starts (
    kind text NOT NULL PRIMARY KEY,
    since timestamptz NOT NULL DEFAULT now()
);
