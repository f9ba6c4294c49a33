//! The JSON types of the admin API: plain data, computed when somebody asks. The scrape reads the
//! same values, so the API, the status table and `/metrics` cannot tell different stories.
//!
//! Times are given twice, as an instant for records and as milliseconds from now for people who
//! count down, because a reader may not share our clock.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::policy::time::WallTime;
use crate::telemetry::names;

/// One upstream as it is now.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UpstreamView {
    /// The name in paths and labels.
    pub name: String,
    /// Scheme, host, port and base path; never a credential.
    pub url: String,
    /// The upstream's own breaker first, then those of routes that have one.
    pub breaker: Vec<BreakerView>,
    /// What is closed because the upstream said so.
    pub cooldowns: Vec<CooldownView>,
    /// What the upstream allows, as learned.
    pub quotas: Vec<QuotaView>,
    /// Credentials that the upstream does not accept.
    pub locks: Vec<LockView>,
    /// Attempts in flight.
    pub in_flight: u32,
    /// Attempts in flight at most, as configured.
    pub in_flight_max: u32,
    /// Attempts in flight at most, as learned from refusals; `None` when nothing was learned.
    pub adaptive_limit: Option<u32>,
    /// Exchanges that wait.
    pub queued: u32,
    /// How many of them are in which band, without those where nobody waits.
    #[serde(default)]
    pub queued_by_band: BTreeMap<String, u32>,
    /// Exchanges that may wait.
    pub queue_max: u32,
    /// 0.0 to 1.0.
    pub retry_budget_remaining_ratio: f64,
    /// The default route first.
    pub routes: Vec<RouteView>,
    /// Open connections to it.
    pub connections: u32,
}

/// A breaker, of the upstream or of one of its routes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BreakerView {
    /// `upstream` or `route <name>`, as in refusals; the label `breaker`.
    pub scope: String,
    /// What it does with traffic.
    pub state: BreakerState,
    /// When the next attempt may go; `None` unless it is open.
    pub open_until: Option<Moment>,
    /// The same, from now.
    pub open_remaining_ms: Option<u64>,
    /// Share of failures in its window, 0.0 to 1.0.
    pub failure_ratio: f64,
    /// What a person gave as the reason for overriding it.
    pub forced_reason: Option<String>,
    /// When the override ends by itself.
    pub forced_until: Option<Moment>,
}

/// What a breaker does with traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// Lets it flow.
    Closed,
    /// Refuses or holds it.
    Open,
    /// Lets one probe through.
    HalfOpen,
    /// Open because a person said so.
    ForcedOpen,
    /// Lets everything flow because a person said so.
    Disabled,
}

impl BreakerState {
    /// All states, in the order of [`names::BREAKER_STATES`].
    pub const ALL: [Self; 5] =
        [Self::Closed, Self::Open, Self::HalfOpen, Self::ForcedOpen, Self::Disabled];

    /// The word in JSON, tables and labels.
    pub fn name(self) -> &'static str {
        let [closed, open, half_open, forced_open, disabled] = names::BREAKER_STATES;
        match self {
            Self::Closed => closed,
            Self::Open => open,
            Self::HalfOpen => half_open,
            Self::ForcedOpen => forced_open,
            Self::Disabled => disabled,
        }
    }
}

/// A scope that the upstream closed for a while.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CooldownView {
    /// `upstream`, `route <name>`, `credential <hash>`, `without a credential` or `bucket <name>`.
    pub scope: String,
    /// Nothing before this time.
    pub until: Moment,
    /// The same, from now.
    pub remaining_ms: u64,
    /// The field that decided: `retry-after`, `ratelimit-reset` …
    pub source: String,
    /// Its name and what stood in it, cut short; `None` where forbear itself decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<String>,
}

/// A quota as the upstream last told it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QuotaView {
    /// What it belongs to.
    pub scope: String,
    /// What tells it from others there; `None` for the only one.
    pub name: Option<String>,
    /// The bucket or the route.
    pub bucket: String,
    /// Whether answers told of it; else only the configuration did.
    pub is_told: bool,
    /// Requests per window, where told.
    pub limit: Option<u64>,
    /// What is left.
    pub remaining: u64,
    /// When it is renewed.
    pub reset_at: Option<Moment>,
    /// The same, from now.
    pub reset_in_ms: Option<u64>,
}

/// A credential that the upstream refused again and again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LockView {
    /// A few digits of a salted hash.
    pub credential: String,
    /// When one may try again.
    pub until: Moment,
    /// The same, from now.
    pub remaining_ms: u64,
}

/// How long a number of requests would take now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PreflightView {
    /// Name of the upstream.
    pub upstream: String,
    /// Name of the route.
    pub route: String,
    /// How many more requests it is about.
    pub requests: u32,
    /// Until the last of them is answered, sent as fast as forbear lets them.
    pub takes_ms: u64,
    /// The same as a moment.
    pub done_at: Moment,
    /// Until the first of them may go.
    pub starts_in_ms: u64,
    /// What they wait for most: `concurrency`, `quota`, `refusals`, `cooldown`,
    /// `breaker` or `credential`.
    pub bound_by: String,
    /// The name of the quota, if it is one that has a name.
    pub quota: Option<String>,
    /// Whose state it is from: the bucket and credential that were served last.
    pub scope: Option<String>,
    /// Exchanges that wait already and go before them.
    pub queued: u32,
    /// At once at most, as configured or learned.
    pub in_flight_max: u32,
    /// What one takes on average; `None` while nothing was answered yet.
    pub per_request_ms: Option<u64>,
}

/// One route group of an upstream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RouteView {
    /// The name in labels.
    pub name: String,
    /// `GET /search/*`; `None` for what no other route matches.
    pub matches: Option<String>,
    /// `enforce` or `shadow`.
    pub mode: String,
    /// Attempts in flight on it.
    pub in_flight: u32,
    /// Attempts in flight on it at most, besides the upstream's limit.
    pub in_flight_max: Option<u32>,
}

/// One pool of permits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeyView {
    /// The value that requests name: `tenant:42`.
    pub key: String,
    /// The configured key it falls under, `tenant:*`; the label `key`.
    pub pattern: String,
    /// Permits in all.
    pub in_flight_max: u32,
    /// Permits taken.
    pub in_flight: u32,
    /// Exchanges that wait for one.
    pub waiting: u32,
}

/// What belongs to the process and to no upstream; only the scrape needs it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProcessView {
    /// Whether it was asked to end.
    pub draining: bool,
    /// Name of each listener (`proxy`, `admin`, an upstream's) and its open connections.
    pub listeners: Vec<(String, u32)>,
}

/// The answer of `/readyz`. Never depends on an upstream's health.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    /// Whether traffic should come.
    pub ready: bool,
    /// Why not, in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What a reload did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadReport {
    /// One sentence per difference; empty when nothing changed.
    pub changes: Vec<String>,
    /// Of the configuration now in force.
    pub hash: String,
}

/// A change of state, as `/api/v1/events` tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventView {
    /// When.
    pub time: Moment,
    /// What happened.
    pub kind: EventKind,
    /// To which upstream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    /// To which part of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// A sentence for people.
    pub detail: String,
}

/// The closed set of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A breaker changed its state.
    Breaker,
    /// A cooldown began, grew or was cleared.
    Cooldown,
    /// A quota was told of for the first time, or its limit changed.
    Quota,
    /// A credential was locked, because the upstream refuses it, or unlocked.
    Credential,
    /// A configuration was applied or refused.
    Config,
    /// The process was asked to end.
    Draining,
}

impl EventKind {
    /// The word in JSON and in the `event` field of the stream.
    pub fn name(self) -> &'static str {
        match self {
            Self::Breaker => "breaker",
            Self::Cooldown => "cooldown",
            Self::Quota => "quota",
            Self::Credential => "credential",
            Self::Config => "config",
            Self::Draining => "draining",
        }
    }
}

/// A wall time that is RFC 3339 in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment(pub WallTime);

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse(&text).map(Self).ok_or_else(|| {
            serde::de::Error::custom(format!(
                "{text:?} is not a time like 2026-01-15T10:00:00.000Z"
            ))
        })
    }
}

/// Reads exactly what [`WallTime`] prints for the years 0 to 9999.
fn parse(text: &str) -> Option<WallTime> {
    let shape = text.len() == "2026-01-15T10:00:00.000Z".len() && text.is_ascii();
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<i64>().ok();
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let ms = number(20, 23)?;
    // The year begins in March, so that the leap day is its last day (as in `WallTime`'s Display).
    let (year, month_from_march) =
        if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    let days = 365 * year + leap_days + (153 * month_from_march + 2) / 5 + day - 1 - 719_468;
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
    let parsed = WallTime { unix_ms: seconds * 1000 + ms };
    // Printing it again checks separators and ranges at once.
    (shape && parsed.to_string() == text).then_some(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_survives_json() {
        for unix_ms in [0, 951_782_400_000, 1_768_471_200_123, 4_102_444_799_999] {
            let moment = Moment(WallTime { unix_ms });
            let json = serde_json::to_string(&moment).unwrap();
            assert_eq!(serde_json::from_str::<Moment>(&json).unwrap(), moment);
        }
    }

    #[test]
    fn a_moment_of_another_form_is_refused() {
        for text in
            ["", "now", "2026-13-01T00:00:00.000Z", "2026-02-30T00:00:00.000Z", "2026-01-15"]
        {
            assert!(parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn the_states_of_a_breaker_have_one_name_each_in_json_and_labels() {
        for state in BreakerState::ALL {
            let json = serde_json::to_value(state).unwrap();
            assert_eq!(json, state.name());
        }
    }
}
