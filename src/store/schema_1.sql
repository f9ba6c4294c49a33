-- Times are milliseconds since 1970 (…_ms at a moment: started_ms, at_ms, since_ms, until_ms) or
-- spans in milliseconds with fractions (everything else that ends in _ms).

CREATE TABLE exchange (
    seq         INTEGER PRIMARY KEY,  -- in the order in which they ended
    id          TEXT NOT NULL,        -- Forbear-Request-Id
    started_ms  INTEGER NOT NULL,     -- when its head was complete
    took_ms     REAL NOT NULL,        -- to the last byte
    upstream    TEXT,                 -- NULL where no route was found
    route       TEXT,
    method      TEXT NOT NULL,
    path        TEXT NOT NULL,        -- never the query
    keys        TEXT,                 -- concurrency keys, with spaces between them
    flow        TEXT,
    run         TEXT,
    status      INTEGER,              -- NULL where the client left before it got one
    outcome     TEXT NOT NULL,        -- as in forbear_requests_total
    decision    TEXT NOT NULL,        -- Forbear-Decision
    shadow      TEXT,                 -- in shadow mode, the wait that was not made
    attempts    INTEGER NOT NULL,
    queue_ms    REAL NOT NULL,        -- the waits, all attempts together
    pacing_ms   REAL NOT NULL,
    cooldown_ms REAL NOT NULL,
    backoff_ms  REAL NOT NULL,
    breaker_ms  REAL NOT NULL,
    sending_ms  REAL NOT NULL,        -- attempts, each to its response head or failure
    streamed_ms REAL NOT NULL,        -- the response body on its way to the client
    own_ms      REAL NOT NULL,        -- the rest: forbear's own time, and the client's
    behind      INTEGER,              -- exchanges that stood in line before it
    retry_at_ms INTEGER,              -- when it is worth coming back, where a failure said so
    reason      TEXT,                 -- a refusal's sentence
    bytes_up    INTEGER NOT NULL,
    bytes_down  INTEGER NOT NULL,
    weight      INTEGER NOT NULL      -- exchanges that this row stands for; 1 unless sampled
);
CREATE INDEX exchange_by_id ON exchange (id);

CREATE TABLE attempt (
    seq         INTEGER NOT NULL,     -- of its exchange
    n           INTEGER NOT NULL,     -- from 1
    status      INTEGER,              -- NULL where no answer came
    class       TEXT NOT NULL,        -- what it meant: ok, throttled, unhealthy …
    error       TEXT,                 -- what failed: connect, reset, timeout_first_byte …
    sent        TEXT NOT NULL,        -- of the request: nothing, partly, answered
    took_ms     REAL NOT NULL,
    hint_ms     REAL,                 -- "not before", from the answer on
    hint_source TEXT,                 -- in which field
    hint_raw    TEXT,                 -- as it stood there
    queue_ms    REAL NOT NULL,        -- waits just before this attempt
    pacing_ms   REAL NOT NULL,
    cooldown_ms REAL NOT NULL,
    backoff_ms  REAL NOT NULL,
    breaker_ms  REAL NOT NULL,
    PRIMARY KEY (seq, n)
) WITHOUT ROWID;

CREATE TABLE event (
    seq         INTEGER PRIMARY KEY,
    at_ms       INTEGER NOT NULL,
    kind        TEXT NOT NULL,        -- breaker, cooldown, config, draining …
    upstream    TEXT,
    scope       TEXT,
    detail      TEXT NOT NULL
);

CREATE TABLE state (
    upstream    TEXT NOT NULL,
    kind        TEXT NOT NULL,        -- breaker, cooldown, quota
    scope       TEXT NOT NULL,        -- upstream, route search, credential 1f …
    origin      TEXT NOT NULL,        -- state belongs to this origin of the upstream
    since_ms    INTEGER,
    until_ms    INTEGER,
    data        TEXT NOT NULL,        -- JSON, as its kind has it
    saved_ms    INTEGER NOT NULL,
    boot        TEXT,                 -- id of the machine's start in which it was saved …
    boot_ms     INTEGER,              -- … and how long that was ago: a clock that was set since shows
    PRIMARY KEY (upstream, kind, scope)
) WITHOUT ROWID;

CREATE TABLE meta (
    name        TEXT PRIMARY KEY,
    value       NOT NULL
) WITHOUT ROWID;
