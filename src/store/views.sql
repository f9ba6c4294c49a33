-- What people ask. Made anew whenever a forbear opens the file, so they are always those of the
-- newest version that did. They say json_extract and never the arrow, which came with SQLite 3.38:
-- one view that an older shell cannot read makes the whole file unreadable to it.

DROP VIEW IF EXISTS v_exchanges;
CREATE VIEW v_exchanges AS
SELECT id AS request_id,
       strftime('%Y-%m-%dT%H:%M:%fZ', started_ms / 1000.0, 'unixepoch') AS started,
       upstream, route, credential, method, path, keys, flow, run, status, outcome, decision, attempts,
       round(took_ms / 1000, 3) AS seconds,
       round((queue_ms + pacing_ms + cooldown_ms + backoff_ms + breaker_ms) / 1000, 3) AS waited_seconds,
       round(own_ms, 3) AS own_ms, behind, reason, bytes_up, bytes_down, weight
FROM exchange;

DROP VIEW IF EXISTS v_open_circuits;
CREATE VIEW v_open_circuits AS
SELECT upstream,
       CASE WHEN scope LIKE 'route %' THEN substr(scope, 7) END AS route,
       json_extract(data, '$.state') AS state,
       strftime('%Y-%m-%dT%H:%M:%fZ', since_ms / 1000.0, 'unixepoch') AS opened_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', until_ms / 1000.0, 'unixepoch') AS retry_at,
       json_extract(data, '$.failures') AS failures,
       json_extract(data, '$.last_error') AS last_error
FROM state
WHERE kind = 'breaker' AND json_extract(data, '$.state') IN ('open', 'forced_open');

DROP VIEW IF EXISTS v_half_open;
CREATE VIEW v_half_open AS
SELECT upstream,
       CASE WHEN scope LIKE 'route %' THEN substr(scope, 7) END AS route,
       strftime('%Y-%m-%dT%H:%M:%fZ', since_ms / 1000.0, 'unixepoch') AS opened_at,
       json_extract(data, '$.failures') AS failures,
       json_extract(data, '$.last_error') AS last_error
FROM state
WHERE kind = 'breaker' AND json_extract(data, '$.state') = 'half_open';

DROP VIEW IF EXISTS v_cooldowns;
CREATE VIEW v_cooldowns AS
SELECT upstream, scope,
       strftime('%Y-%m-%dT%H:%M:%fZ', since_ms / 1000.0, 'unixepoch') AS told_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', until_ms / 1000.0, 'unixepoch') AS retry_at,
       json_extract(data, '$.source') AS source
FROM state
WHERE kind = 'cooldown';

DROP VIEW IF EXISTS v_quota;
CREATE VIEW v_quota AS
SELECT upstream, scope,
       json_extract(data, '$.bucket') AS bucket,
       json_extract(data, '$.name') AS name,
       json_extract(data, '$.limit') AS "limit",
       json_extract(data, '$.remaining') AS remaining,
       strftime('%Y-%m-%dT%H:%M:%fZ', until_ms / 1000.0, 'unixepoch') AS reset_at
FROM state
WHERE kind = 'quota';

DROP VIEW IF EXISTS v_locks;
CREATE VIEW v_locks AS
SELECT upstream, scope,
       json_extract(data, '$.times') AS times,
       strftime('%Y-%m-%dT%H:%M:%fZ', until_ms / 1000.0, 'unixepoch') AS retry_at
FROM state
WHERE kind = 'lock';

DROP VIEW IF EXISTS v_backoff;
CREATE VIEW v_backoff AS
SELECT id AS request_id, upstream, attempts,
       round((backoff_ms + cooldown_ms + breaker_ms) / 1000, 3) AS backoff_seconds,
       strftime('%Y-%m-%dT%H:%M:%fZ', retry_at_ms / 1000.0, 'unixepoch') AS retry_at
FROM exchange
WHERE backoff_ms + cooldown_ms + breaker_ms > 0 OR retry_at_ms IS NOT NULL;

DROP VIEW IF EXISTS v_fleet;
CREATE VIEW v_fleet AS
SELECT upstream,
       sum(CASE WHEN outcome IN ('ok', 'client_error', 'client_disconnect') THEN 0 ELSE weight END)
           AS failure_count,
       round(sum(attempts * weight) * 1.0 / sum(weight), 3) AS avg_attempts,
       round(max(backoff_ms + cooldown_ms + breaker_ms) / 1000, 3) AS max_backoff
FROM exchange
WHERE upstream IS NOT NULL
GROUP BY upstream;

DROP VIEW IF EXISTS v_runs;
CREATE VIEW v_runs AS
SELECT run,
       sum(weight) AS exchanges,
       sum(CASE WHEN outcome = 'ok' THEN 0 ELSE weight END) AS not_ok,
       sum(outcome LIKE 'rejected_%') AS refusals,
       sum(attempts * weight) AS attempts,
       round(sum(queue_ms) / 1000, 3) AS queue_seconds,
       round(sum(pacing_ms) / 1000, 3) AS pacing_seconds,
       round(sum(cooldown_ms) / 1000, 3) AS cooldown_seconds,
       round(sum(backoff_ms) / 1000, 3) AS backoff_seconds,
       round(sum(breaker_ms) / 1000, 3) AS breaker_seconds,
       strftime('%Y-%m-%dT%H:%M:%fZ', min(started_ms) / 1000.0, 'unixepoch') AS first,
       strftime('%Y-%m-%dT%H:%M:%fZ', max(started_ms + took_ms) / 1000.0, 'unixepoch') AS last
FROM exchange
WHERE run IS NOT NULL
GROUP BY run;
