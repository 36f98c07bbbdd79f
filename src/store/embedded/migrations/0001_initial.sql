-- Times are milliseconds since 1970-01-01T00:00:00Z, days are days since that date. Ids are UUIDs as text.

CREATE TABLE meta (
    one        INTEGER PRIMARY KEY CHECK (one = 1),
    store_id   BLOB    NOT NULL CHECK (length(store_id) = 16),
    created_at INTEGER NOT NULL,
    -- Moved by every step of a key rotation.
    generation INTEGER NOT NULL DEFAULT 0,
    -- Moved by every change to any key.
    revision   INTEGER NOT NULL DEFAULT 0,
    -- 1 from the moment keys were put in: a store that had keys and has none is refused.
    had_keys   INTEGER NOT NULL DEFAULT 0 CHECK (had_keys IN (0, 1)),
    -- Log days before this one (days since 1970) have no key any more, and never get one.
    log_keys_from INTEGER,
    -- Wrong tries that met no live code: they cost the same write as those that did.
    stray_tries INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE keys (
    id           TEXT    NOT NULL PRIMARY KEY,
    purpose      TEXT    NOT NULL,
    state        TEXT    NOT NULL,
    suspended    INTEGER NOT NULL CHECK (suspended IN (0, 1)),
    compromised  INTEGER NOT NULL CHECK (compromised IN (0, 1)),
    wrapped      BLOB    NOT NULL,
    commitment   BLOB    NOT NULL CHECK (length(commitment) = 32),
    public       BLOB,
    created_at   INTEGER NOT NULL,
    activated_at INTEGER,
    retired_at   INTEGER,
    drained_at   INTEGER,
    destroyed_at INTEGER
) STRICT;
CREATE UNIQUE INDEX keys_one_active ON keys (purpose) WHERE state = 'active';

-- What seals the access log, a key a day (UTC). Destroyed at the end of the retention, and in no backup.
CREATE TABLE log_keys (
    day     INTEGER PRIMARY KEY,
    wrapped BLOB    NOT NULL
) STRICT;

CREATE TABLE schemes (
    id         TEXT NOT NULL PRIMARY KEY,
    memory_kib INTEGER,
    passes     INTEGER,
    salt       BLOB NOT NULL CHECK (length(salt) = 16),
    -- What keyed hashes of PINs are made with, wrapped as the keys are.
    pin_secret BLOB NOT NULL,
    CHECK ((memory_kib IS NULL) = (passes IS NULL))
) STRICT;

-- `tag` is random and of this one row: what a tombstone names. An account that is made anew has another.
CREATE TABLE accounts (
    account    TEXT    NOT NULL PRIMARY KEY,
    state      TEXT    NOT NULL CHECK (state IN ('active', 'suspended')),
    created_at INTEGER NOT NULL,
    tag        BLOB    NOT NULL UNIQUE DEFAULT (randomblob(16)) CHECK (length(tag) = 16)
) STRICT;

CREATE TABLE subjects (
    account  TEXT NOT NULL REFERENCES accounts ON DELETE CASCADE,
    upstream TEXT NOT NULL,
    subject  TEXT NOT NULL,
    PRIMARY KEY (account, upstream),
    UNIQUE (upstream, subject)
) STRICT;

-- An HMAC, under the scheme's secret, of what Argon2id made of the PIN. No PIN, and nothing that could be searched
-- without the KEK.
CREATE TABLE pins (
    account TEXT    NOT NULL PRIMARY KEY REFERENCES accounts ON DELETE CASCADE,
    scheme  TEXT    NOT NULL REFERENCES schemes,
    salt    BLOB    NOT NULL CHECK (length(salt) = 16),
    mac     BLOB    NOT NULL CHECK (length(mac) = 32),
    set_at  INTEGER NOT NULL
) STRICT;

-- One code an account: a new one replaces the old.
CREATE TABLE codes (
    selector    TEXT    NOT NULL PRIMARY KEY,
    account     TEXT    NOT NULL UNIQUE REFERENCES accounts ON DELETE CASCADE,
    mac         BLOB    NOT NULL CHECK (length(mac) = 32),
    key         TEXT    NOT NULL,
    issuer      TEXT    NOT NULL CHECK (issuer IN ('operator', 'person')),
    issued_at   INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL,
    wrong_tries INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE code_tries (
    selector    TEXT    NOT NULL REFERENCES codes ON DELETE CASCADE,
    handset_tag BLOB    NOT NULL CHECK (length(handset_tag) = 16),
    wrong_tries INTEGER NOT NULL,
    PRIMARY KEY (selector, handset_tag)
) STRICT;

-- What people are told, since when. The last one is in force.
CREATE TABLE notices (
    seq           INTEGER PRIMARY KEY,
    revision      TEXT    NOT NULL,
    document      TEXT    NOT NULL,
    digest        BLOB    NOT NULL CHECK (length(digest) = 32),
    in_force_from INTEGER NOT NULL
) STRICT;
CREATE TRIGGER notices_behind_the_last BEFORE INSERT ON notices
WHEN NEW.seq <> (SELECT coalesce(max(seq), 0) + 1 FROM notices)
BEGIN SELECT raise(ABORT, 'a notice stands behind the last'); END;
CREATE TRIGGER notices_stay BEFORE UPDATE ON notices
BEGIN SELECT raise(ABORT, 'notices do not change'); END;
CREATE TRIGGER notices_remain BEFORE DELETE ON notices
BEGIN SELECT raise(ABORT, 'notices do not go'); END;

-- `rev` counts the changes of chain and digest, for compare-and-set. `folded` is the digest's four words, XORed: the index
-- of a million whole digests would be three times as large, and a rotation moves each entry to another place in it. No two
-- records have one (digest, carrier): the one writer looks before it writes, and every opening looks at all. `notice` is
-- what its person was shown last.
CREATE TABLE bindings (
    seq          INTEGER PRIMARY KEY,
    id           TEXT    NOT NULL UNIQUE,
    account      TEXT    NOT NULL REFERENCES accounts ON DELETE CASCADE,
    carrier      TEXT    NOT NULL,
    scheme       TEXT    NOT NULL REFERENCES schemes,
    chain        TEXT    NOT NULL,
    digest       BLOB    NOT NULL CHECK (length(digest) = 32),
    folded       INTEGER NOT NULL,
    bound_on     INTEGER NOT NULL,
    last_used_on INTEGER NOT NULL,
    rev          INTEGER NOT NULL DEFAULT 0,
    notice       INTEGER REFERENCES notices
) STRICT;
CREATE INDEX bindings_by_digest ON bindings (folded);
CREATE INDEX bindings_by_account ON bindings (account);
CREATE INDEX bindings_by_last_use ON bindings (last_used_on);
CREATE INDEX bindings_by_scheme ON bindings (scheme);

-- Wrong PINs in a row of one handset; a right one takes its row away.
CREATE TABLE pin_tries (
    binding    TEXT    NOT NULL PRIMARY KEY REFERENCES bindings (id) ON DELETE CASCADE,
    in_a_row   INTEGER NOT NULL,
    -- When the pace that is allowed has caught up with the tries so far.
    busy_until INTEGER NOT NULL
) STRICT;

-- What the person with this handset is to be told at the next sign-in, once.
CREATE TABLE news (
    seq     INTEGER PRIMARY KEY,
    binding TEXT    NOT NULL REFERENCES bindings (id) ON DELETE CASCADE,
    kind    TEXT    NOT NULL,
    -- The binding that it is about; empty where it is about none.
    about   TEXT    NOT NULL,
    carrier TEXT,
    day     INTEGER NOT NULL,
    UNIQUE (binding, kind, about)
) STRICT;

-- What was erased, by random ids alone, until the ledger outside of the store has it: a backup from before must not bring
-- it back. By triggers, so that no way to erase is forgotten.
CREATE TABLE tombstones (
    seq  INTEGER PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('binding', 'account')),
    id   TEXT NOT NULL
) STRICT;
CREATE TRIGGER bindings_leave_a_tombstone AFTER DELETE ON bindings
BEGIN INSERT INTO tombstones (kind, id) VALUES ('binding', OLD.id); END;
CREATE TRIGGER accounts_leave_a_tombstone AFTER DELETE ON accounts
BEGIN INSERT INTO tombstones (kind, id) VALUES ('account', lower(hex(OLD.tag))); END;

-- The journal of each rotation. Counts and cursor move in the step that moves the records.
CREATE TABLE rotations (
    seq         INTEGER PRIMARY KEY,
    id          TEXT    NOT NULL UNIQUE,
    purpose     TEXT    NOT NULL,
    from_key    TEXT    NOT NULL REFERENCES keys,
    to_key      TEXT    NOT NULL REFERENCES keys,
    state       TEXT    NOT NULL,
    reason      TEXT    NOT NULL,
    started_at  INTEGER NOT NULL,
    finished_at INTEGER,
    drain_by    INTEGER NOT NULL,
    total       INTEGER NOT NULL,
    wrapped     INTEGER NOT NULL,
    flattened   INTEGER NOT NULL,
    cursor      INTEGER NOT NULL,
    fence       INTEGER NOT NULL,
    root_before BLOB    NOT NULL,
    root_after  BLOB    NOT NULL
) STRICT;

-- No foreign keys: sessions may live in another store than accounts and bindings. No index by `id`, which each sign-in would
-- pay: whoever ends one by it knows whose it is.
CREATE TABLE sessions (
    seq          INTEGER PRIMARY KEY,
    token_hash   BLOB    NOT NULL UNIQUE CHECK (length(token_hash) = 32),
    id           TEXT    NOT NULL,
    account      TEXT    NOT NULL,
    binding      TEXT    NOT NULL,
    carrier      TEXT    NOT NULL,
    continuity   BLOB    NOT NULL CHECK (length(continuity) = 32),
    -- What makes the key of `continuity` of another token than the one that it was made with.
    link         BLOB    CHECK (length(link) = 32),
    sid_seed     BLOB    NOT NULL CHECK (length(sid_seed) = 16),
    transport    TEXT    NOT NULL,
    by_code      INTEGER NOT NULL CHECK (by_code IN (0, 1)),
    -- When the right PIN was typed in it.
    pin_at       INTEGER,
    created_at   INTEGER NOT NULL,
    last_seen_at INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL
) STRICT;
CREATE INDEX sessions_by_account ON sessions (account);
CREATE INDEX sessions_by_binding ON sessions (binding);

-- Ids are 'p' and the number. Nothing is removed: who agreed to what is evidence.
CREATE TABLE approvals (
    seq        INTEGER PRIMARY KEY,
    action     TEXT    NOT NULL,
    object     TEXT    NOT NULL,
    reason     TEXT    NOT NULL,
    asked_by   TEXT    NOT NULL,
    asked_at   INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    needs      INTEGER NOT NULL CHECK (needs > 0),
    -- Revision of the keys that it was asked about.
    revision   INTEGER NOT NULL,
    state      TEXT    NOT NULL CHECK (state IN ('open', 'done', 'denied', 'expired')),
    ended_at   INTEGER,
    ended_by   TEXT,
    CHECK ((state = 'open') = (ended_at IS NULL))
) STRICT;
CREATE UNIQUE INDEX approvals_open ON approvals (action, object) WHERE state = 'open';

CREATE TABLE approvals_given (
    seq      INTEGER PRIMARY KEY,
    approval INTEGER NOT NULL REFERENCES approvals,
    given_by TEXT    NOT NULL,
    given_at INTEGER NOT NULL,
    UNIQUE (approval, given_by)
) STRICT;

-- The audit trail: a chain (`entry` is canonical JSON, `hash` is over it and the hash before it). Nothing changes, nothing
-- goes but what is before `audit_begin`, which only grows, and an entry stands behind the last.
CREATE TABLE audit_entries (
    seq   INTEGER PRIMARY KEY,
    entry TEXT NOT NULL,
    hash  BLOB NOT NULL CHECK (length(hash) = 32)
) STRICT;
CREATE TRIGGER audit_entries_behind_the_last BEFORE INSERT ON audit_entries
WHEN NEW.seq <> (SELECT coalesce(max(seq), 0) + 1 FROM audit_entries)
BEGIN SELECT raise(ABORT, 'an audit entry stands behind the last'); END;
CREATE TRIGGER audit_entries_stay BEFORE UPDATE ON audit_entries
BEGIN SELECT raise(ABORT, 'audit entries do not change'); END;
CREATE TABLE audit_begin (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    seq INTEGER NOT NULL
) STRICT;
INSERT INTO audit_begin (one, seq) VALUES (1, 1);
CREATE TRIGGER audit_begin_grows BEFORE UPDATE ON audit_begin
WHEN NEW.seq < OLD.seq OR NEW.seq > (SELECT coalesce(max(seq), 1) FROM audit_entries)
BEGIN SELECT raise(ABORT, 'the audit trail does not begin there'); END;
CREATE TRIGGER audit_begin_remains BEFORE DELETE ON audit_begin
BEGIN SELECT raise(ABORT, 'the audit trail begins somewhere'); END;
CREATE TRIGGER audit_entries_remain BEFORE DELETE ON audit_entries
WHEN OLD.seq >= (SELECT seq FROM audit_begin)
BEGIN SELECT raise(ABORT, 'audit entries do not go'); END;

CREATE TABLE audit_checkpoints (
    seq        INTEGER NOT NULL REFERENCES audit_entries,
    key        TEXT    NOT NULL,
    checkpoint TEXT    NOT NULL,
    seal       BLOB    NOT NULL,
    PRIMARY KEY (seq, key)
) STRICT;
CREATE TRIGGER audit_checkpoints_stay BEFORE UPDATE ON audit_checkpoints
BEGIN SELECT raise(ABORT, 'audit checkpoints do not change'); END;
CREATE TRIGGER audit_checkpoints_remain BEFORE DELETE ON audit_checkpoints
WHEN OLD.seq >= (SELECT seq FROM audit_begin)
BEGIN SELECT raise(ABORT, 'audit checkpoints do not go'); END;

-- What verifies the seals: stays when the key itself is destroyed.
CREATE TABLE audit_keys (
    id     TEXT NOT NULL PRIMARY KEY,
    public TEXT NOT NULL
) STRICT;
CREATE TRIGGER audit_keys_stay BEFORE UPDATE ON audit_keys
BEGIN SELECT raise(ABORT, 'audit keys do not change'); END;
CREATE TRIGGER audit_keys_remain BEFORE DELETE ON audit_keys
BEGIN SELECT raise(ABORT, 'audit keys do not go'); END;

-- Who an account is in the trail: an HMAC under this key. Erased with the account. No foreign key: the trail may live in
-- another store, and an entry may come before its account.
CREATE TABLE audit_pseudonyms (
    account TEXT NOT NULL PRIMARY KEY,
    key     BLOB NOT NULL CHECK (length(key) = 32)
) STRICT;

-- Synthetic handsets of a rotation: octets of nobody's, in a table of their own, so that nothing counts or lists them.
CREATE TABLE canaries (
    seq      INTEGER PRIMARY KEY,
    rotation TEXT    NOT NULL,
    octets   BLOB    NOT NULL CHECK (length(octets) = 32),
    dormant  INTEGER NOT NULL CHECK (dormant IN (0, 1)),
    chain    TEXT    NOT NULL,
    digest   BLOB    NOT NULL CHECK (length(digest) = 32)
) STRICT;
CREATE INDEX canaries_by_rotation ON canaries (rotation);

CREATE TABLE canary_observations (
    seq             INTEGER PRIMARY KEY,
    rotation        TEXT    NOT NULL,
    phase           TEXT    NOT NULL,
    at              INTEGER NOT NULL,
    used            INTEGER NOT NULL,
    dormant         INTEGER NOT NULL,
    without_old_key INTEGER NOT NULL,
    UNIQUE (rotation, phase)
) STRICT;

-- What auditors got, as it was issued.
CREATE TABLE documents (
    rotation TEXT NOT NULL,
    part     TEXT NOT NULL,
    document TEXT NOT NULL,
    PRIMARY KEY (rotation, part)
) STRICT;

-- What a person calls a handset.
CREATE TABLE binding_labels (
    binding TEXT NOT NULL PRIMARY KEY REFERENCES bindings (id) ON DELETE CASCADE,
    label   TEXT NOT NULL
) STRICT;

-- What must not be erased. The account cannot go while it stands here.
CREATE TABLE holds (
    account   TEXT    NOT NULL PRIMARY KEY REFERENCES accounts ON DELETE RESTRICT,
    reason    TEXT    NOT NULL,
    placed_by TEXT    NOT NULL,
    placed_at INTEGER NOT NULL
) STRICT;

-- Ids are 'e' and the number. The account stands there until its sessions, its pseudonym's key and the journal are gone.
CREATE TABLE erasures (
    seq       INTEGER PRIMARY KEY,
    account   TEXT,
    pseudonym TEXT,
    erased_at INTEGER NOT NULL,
    bindings  INTEGER NOT NULL,
    codes     INTEGER NOT NULL,
    subjects  INTEGER NOT NULL
) STRICT;
CREATE INDEX erasures_unfinished ON erasures (account) WHERE account IS NOT NULL;

-- How many; never who.
CREATE TABLE statistics (
    day     INTEGER NOT NULL,
    carrier TEXT    NOT NULL,
    kind    TEXT    NOT NULL,
    count   INTEGER NOT NULL,
    PRIMARY KEY (day, carrier, kind)
) STRICT;

-- When a promise was last seen to be kept.
CREATE TABLE proofs (
    name   TEXT    NOT NULL PRIMARY KEY,
    at     INTEGER NOT NULL,
    ok     INTEGER NOT NULL CHECK (ok IN (0, 1)),
    detail TEXT    NOT NULL
) STRICT;
