//! What upstreams know, as rows for the store, and back: names instead of numbers, wall time
//! instead of the process's own.

mod bounds;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use self::bounds::{remaining, warn_of_lost_overrides};
use crate::config::settings::UpstreamConfig;
use crate::gateway::view::url_of;
use crate::gateway::{Gateway, Live};
use crate::policy::adaptive::SavedLimit;
use crate::policy::breaker::{Circuit, SavedCircuit};
use crate::policy::line::CredentialId;
use crate::policy::outcome::HintSource;
use crate::policy::scope::{Cooldown, Learned, SavedCycle, SpentQuota};
use crate::policy::time::{MonoTime, TimeAnchor, WallTime};
use crate::policy::upstream::{Lock, SavedBreaker, SavedQuota, SavedScope, SavedUpstream};
use crate::store::state::{Snapshot, StateKey, StateRows, StateValue};
use crate::telemetry::names;

const BREAKER: &str = "breaker";
const COOLDOWN: &str = "cooldown";
const QUOTA: &str = "quota";
const LOCK: &str = "lock";
const SPENT: &str = "spent";
const CYCLE: &str = "cycle";
const LIMIT: &str = "limit";

/// Two readings of both clocks differ by so much at most without a reason; a time that moved less
/// has not changed.
const SAME_TIME: Duration = Duration::from_millis(500);

/// Tells the store what all upstreams know, whenever it asks.
pub(super) fn snapshot(live: Live) -> Snapshot {
    Box::new(move |before| rows(&live.load(), before))
}

/// Everything that is worth keeping. `before` is what is on disk: times that are the same but for
/// the reading of the clocks stay as they are there.
fn rows(gateway: &Gateway, before: &StateRows) -> StateRows {
    let anchor = gateway.common.clock.anchor();
    let mut rows = StateRows::new();
    for upstream in &gateway.upstreams {
        let name = &*upstream.config.name;
        let origin = url_of(&upstream.config);
        let last_error = upstream.state.last_failure();
        let saved = upstream.state.with(|policy, cx| policy.saved(cx.now));
        let mut put = |kind: &str, scope: String, since, until: Option<MonoTime>, data| {
            let key = StateKey { upstream: name.to_owned(), kind: kind.to_owned(), scope };
            let old = before.get(&key).filter(|old| old.origin == origin);
            let until = until.map(|at| steady(anchor.wall(at), old.and_then(|old| old.until)));
            let since = match since {
                Some(at) => steady(anchor.wall(at), old.and_then(|old| old.since)),
                None => began(old, &data, until, anchor.wall),
            };
            let (origin, since) = (origin.clone(), Some(since));
            rows.insert(key, StateValue { origin, since, until, data });
        };
        for SavedBreaker { route, circuit, reason } in &saved.breakers {
            let until = match circuit.circuit {
                Circuit::Open { until }
                | Circuit::ForcedOpen { until }
                | Circuit::ForcedClosed { until } => Some(until),
                Circuit::Closed | Circuit::HalfOpen => None,
            };
            let scope = route
                .as_deref()
                .map_or_else(|| names::BREAKER_UPSTREAM.to_owned(), names::breaker_of_route);
            let data = json!({
                "state": circuit.circuit.name().name(), "openings": circuit.openings,
                "failures": circuit.failures, "last_error": last_error, "reason": reason.as_deref(),
            });
            put(BREAKER, scope, None, until, data);
        }
        for (scope, cooldown) in &saved.cooldowns {
            let data = json!({
                "wait_ms": millis(cooldown.wait), "source": cooldown.source.map(source_word),
                "exhausted": cooldown.exhausted, "raw": cooldown.raw.as_deref(),
            });
            let data = of_scope(scope, data);
            let since = Some(cooldown.received);
            put(COOLDOWN, scope_name(scope), since, Some(cooldown.until), data);
        }
        for quota in &saved.quotas {
            let name = quota.name.as_deref();
            let data = json!({ "name": name, "limit": quota.limit, "remaining": quota.remaining });
            let data = of_scope(&quota.scope, data);
            let mut scope = scope_name(&quota.scope);
            if let Some(name) = &quota.name {
                scope.push_str(": ");
                scope.push_str(name);
            }
            put(QUOTA, scope, None, quota.reset, data);
        }
        for (scope, SpentQuota { name, units, until }) in &saved.spent {
            let data = of_scope(scope, json!({ "name": name, "units": units }));
            let scope = format!("{}: {name}", scope_name(scope));
            put(SPENT, scope, None, Some(*until), data);
        }
        for (scope, learned) in &saved.learned {
            let (kind, data) = match learned {
                Learned::Cycle(cycle) => {
                    let SavedCycle { burst, length, served, failed_tries, .. } = cycle;
                    let length_ms = millis(*length);
                    let data = json!({
                        "burst": burst, "length_ms": length_ms, "served": served,
                        "failed_tries": failed_tries,
                    });
                    (CYCLE, data)
                }
                Learned::Limit(SavedLimit { limit, refused_at, failed_tries, .. }) => {
                    let data = json!({
                        "limit": limit, "refused_at": refused_at, "failed_tries": failed_tries,
                    });
                    (LIMIT, data)
                }
            };
            let data = of_scope(scope, data);
            put(kind, scope_name(scope), None, Some(learned.until()), data);
        }
        for (credential, lock) in &saved.locks {
            let scope = SavedScope::Credential(*credential);
            let secret = secret_of(gateway, &upstream.config, *credential);
            let data = of_scope(&scope, json!({ "times": lock.times, "secret": secret }));
            put(LOCK, scope_name(&scope), None, Some(lock.until), data);
        }
    }
    rows
}

/// Lets every upstream go on where the process before this one stopped, and says so.
pub(super) fn restore(gateway: &Gateway, saved: &StateRows) {
    let anchor = gateway.common.clock.anchor();
    warn_of_lost_overrides(gateway, saved, anchor.wall);
    for upstream in &gateway.upstreams {
        let name = &*upstream.config.name;
        let origin = url_of(&upstream.config);
        let own =
            saved.iter().filter(|(key, value)| key.upstream == name && value.origin == origin);
        let mut state = SavedUpstream::default();
        for (key, value) in own {
            let until = value
                .until
                .map(|until| remaining(key, value, until, anchor, &upstream.config.policy));
            let is_understood = match key.kind.as_str() {
                BREAKER => add(&mut state.breakers, breaker(key, value, until, anchor.mono)),
                COOLDOWN => add(&mut state.cooldowns, cooldown(value, until, anchor)),
                QUOTA => add(&mut state.quotas, quota(value, until)),
                LOCK => add(&mut state.locks, lock(value, until)),
                SPENT => add(&mut state.spent, spent(value, until)),
                CYCLE | LIMIT => add(&mut state.learned, learned(&key.kind, value, until)),
                // Of another version.
                _ => true,
            };
            if !is_understood {
                let StateKey { kind, scope, .. } = key;
                tracing::warn!(
                    upstream = name,
                    kind,
                    scope,
                    "what was kept is not understood; left out"
                );
            }
            // A corrected secret is not to blame for the one before it.
            if key.kind == LOCK && is_understood {
                let secret = value.data.get("secret").and_then(Value::as_str);
                state.locks.pop_if(|(credential, _)| {
                    secret_of(gateway, &upstream.config, *credential).as_deref() != secret
                });
            }
        }
        let (breakers, cooldowns) = (state.breakers.len(), state.cooldowns.len());
        let (quotas, locks) = (state.quotas.len() + state.spent.len(), state.locks.len());
        let learned = state.learned.len();
        if breakers + cooldowns + quotas + locks + learned > 0 {
            upstream.state.with(|policy, cx| policy.restore(cx, &state));
            tracing::info!(
                upstream = name,
                breakers,
                cooldowns,
                quotas,
                locks,
                learned,
                "state restored"
            );
        }
    }
}

fn add<T>(all: &mut Vec<T>, one: Option<T>) -> bool {
    let before = all.len();
    all.extend(one);
    all.len() > before
}

fn breaker(
    key: &StateKey,
    value: &StateValue,
    until: Option<MonoTime>,
    now: MonoTime,
) -> Option<SavedBreaker> {
    let text = |name| value.data.get(name).and_then(Value::as_str);
    let count = |name| value.data.get(name).and_then(Value::as_u64).unwrap_or(0);
    let state = text("state")?;
    let until = until.unwrap_or(now);
    let circuit = [
        Circuit::Open { until },
        Circuit::HalfOpen,
        Circuit::ForcedOpen { until },
        Circuit::ForcedClosed { until },
    ];
    Some(SavedBreaker {
        route: names::route_of_breaker(&key.scope).map(Arc::from),
        circuit: SavedCircuit {
            circuit: circuit.into_iter().find(|circuit| circuit.name().name() == state)?,
            openings: u32::try_from(count("openings")).unwrap_or(u32::MAX),
            failures: u32::try_from(count("failures")).unwrap_or(u32::MAX),
        },
        reason: text("reason").map(Arc::from),
    })
}

fn cooldown(
    value: &StateValue,
    until: Option<MonoTime>,
    anchor: TimeAnchor,
) -> Option<(SavedScope, Cooldown)> {
    // Received before this process began: at its beginning, then.
    let received = value.since.map_or(anchor.mono, |since| anchor.mono(since).min(anchor.mono));
    let wait = value.data.get("wait_ms").and_then(Value::as_u64).map(Duration::from_millis)?;
    let source = value.data.get("source").and_then(Value::as_str);
    let source = source.and_then(|word| SOURCES.into_iter().find(|it| source_word(*it) == word));
    let exhausted = value.data.get("exhausted").and_then(Value::as_bool).unwrap_or(false);
    let raw = value.data.get("raw").and_then(Value::as_str).map(Arc::from);
    let cooldown = Cooldown { until: until?, received, wait, source, raw, exhausted };
    Some((scope_of(&value.data)?, cooldown))
}

fn quota(value: &StateValue, reset: Option<MonoTime>) -> Option<SavedQuota> {
    let scope = scope_of(&value.data)?;
    let name = value.data.get("name").and_then(Value::as_str).map(Arc::from);
    let limit = value.data.get("limit").and_then(Value::as_u64);
    let remaining = value.data.get("remaining").and_then(Value::as_u64)?;
    Some(SavedQuota { scope, name, limit, remaining, reset })
}

fn spent(value: &StateValue, until: Option<MonoTime>) -> Option<(SavedScope, SpentQuota)> {
    let name = value.data.get("name").and_then(Value::as_str)?.into();
    let units = value.data.get("units").and_then(Value::as_u64)?;
    Some((scope_of(&value.data)?, SpentQuota { name, units, until: until? }))
}

fn learned(
    kind: &str,
    value: &StateValue,
    until: Option<MonoTime>,
) -> Option<(SavedScope, Learned)> {
    let count = |name| u32::try_from(value.data.get(name)?.as_u64()?).ok();
    let (failed_tries, until) = (count("failed_tries")?, until?);
    let learned = if kind == CYCLE {
        let length = value.data.get("length_ms")?.as_u64().map(Duration::from_millis)?;
        let (burst, served) = (count("burst")?, count("served")?);
        Learned::Cycle(SavedCycle { burst, length, served, failed_tries, until })
    } else {
        let (limit, refused_at) = (count("limit")?, count("refused_at"));
        Learned::Limit(SavedLimit { limit, refused_at, failed_tries, until })
    };
    Some((scope_of(&value.data)?, learned))
}

fn lock(value: &StateValue, until: Option<MonoTime>) -> Option<(CredentialId, Lock)> {
    let SavedScope::Credential(credential) = scope_of(&value.data)? else { return None };
    let times = value.data.get("times").and_then(Value::as_u64).unwrap_or(1);
    Some((credential, Lock::restored(until?, u32::try_from(times).unwrap_or(u32::MAX))))
}

/// A salted hash of the secret that is put on the requests of an upstream, if that is the
/// credential.
fn secret_of(
    gateway: &Gateway,
    config: &UpstreamConfig,
    credential: CredentialId,
) -> Option<String> {
    let common = &gateway.common;
    let injected = config.credential.as_ref()?;
    let is_injected = common.injected(config) == credential.0;
    is_injected.then(|| format!("{:016x}", common.salted(injected.value.reveal().as_bytes())))
}

fn scope_of(data: &Value) -> Option<SavedScope> {
    let credential = match data.get("credential")?.as_str() {
        Some(digits) => Some(CredentialId(u64::from_str_radix(digits, 16).ok()?)),
        None => None,
    };
    let name = |key| data.get(key).and_then(Value::as_str);
    let owner = credential.unwrap_or_default();
    Some(match (name("route"), name("bucket"), credential) {
        (Some(route), _, _) => SavedScope::Route(route.into(), owner),
        (None, Some(bucket), _) => SavedScope::Bucket(bucket.into(), owner),
        (None, None, Some(credential)) => SavedScope::Credential(credential),
        (None, None, None) => SavedScope::Whole,
    })
}

/// What is said of a scope, with its route or bucket, and its credential in hexadecimal; nobody's is
/// none.
fn of_scope(scope: &SavedScope, mut data: Value) -> Value {
    let (route, bucket, credential) = match scope {
        SavedScope::Whole => (None, None, None),
        SavedScope::Credential(credential) => (None, None, Some(credential)),
        SavedScope::Route(route, credential) => (Some(&**route), None, Some(credential)),
        SavedScope::Bucket(bucket, credential) => (None, Some(&**bucket), Some(credential)),
    };
    // Beside a route, nobody's is left out; alone, it would say everybody.
    let is_wide = matches!(scope, SavedScope::Credential(_));
    let digits = credential
        .filter(|owner| is_wide || **owner != CredentialId::default())
        .map(|credential| format!("{:016x}", credential.0));
    if let Value::Object(data) = &mut data {
        data.insert("route".to_owned(), json!(route));
        data.insert("bucket".to_owned(), json!(bucket));
        data.insert("credential".to_owned(), json!(digits));
    }
    data
}

/// As in the API, with all digits of the credential: two must not be taken for one.
fn scope_name(scope: &SavedScope) -> String {
    let of = |kind: &str, name: &str, credential: &CredentialId| {
        if *credential == CredentialId::default() {
            format!("{kind} {name}")
        } else {
            format!("{kind} {name}, credential {:016x}", credential.0)
        }
    };
    match scope {
        SavedScope::Whole => names::BREAKER_UPSTREAM.to_owned(),
        SavedScope::Credential(credential) => format!("credential {:016x}", credential.0),
        SavedScope::Route(route, credential) => of("route", route, credential),
        SavedScope::Bucket(bucket, credential) => of("bucket", bucket, credential),
    }
}

/// Since when a state is so: as long as it is the same one, since it was first seen. A breaker that
/// goes from open to half-open is still the one that opened then.
fn began(
    old: Option<&StateValue>,
    data: &Value,
    until: Option<WallTime>,
    now: WallTime,
) -> WallTime {
    let state = |data: &Value| data.get("state").and_then(Value::as_str).map(str::to_owned);
    let same = old.filter(|old| {
        let (before, after) = (state(&old.data), state(data));
        let goes_on = before == after && old.until == until;
        let opened = Circuit::Open { until: MonoTime::ZERO }.name().name();
        let probes = Circuit::HalfOpen.name().name();
        goes_on || (before.as_deref() == Some(opened) && after.as_deref() == Some(probes))
    });
    same.and_then(|old| old.since).unwrap_or(now)
}

fn steady(new: WallTime, old: Option<WallTime>) -> WallTime {
    old.filter(|old| new.since(*old) < SAME_TIME && old.since(new) < SAME_TIME).unwrap_or(new)
}

const SOURCES: [HintSource; 8] = [
    HintSource::RetryAfterMs,
    HintSource::RetryAfterDelta,
    HintSource::RetryAfterDate,
    HintSource::VendorRetryAfter,
    HintSource::Profile,
    HintSource::Body,
    HintSource::RateLimitReset,
    HintSource::RateLimitResetAt,
];

fn source_word(source: HintSource) -> &'static str {
    match source {
        HintSource::RetryAfterDate => "retry-after (date)",
        HintSource::RateLimitResetAt => "ratelimit-reset (date)",
        HintSource::RetryAfterMs
        | HintSource::RetryAfterDelta
        | HintSource::VendorRetryAfter
        | HintSource::Profile
        | HintSource::Body
        | HintSource::RateLimitReset => source.name(),
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
