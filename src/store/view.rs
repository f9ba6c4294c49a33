//! An exchange as `GET /api/v1/exchanges/{id}` and `forbear explain --json` tell it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::telemetry::view::Moment;

/// One exchange. Spans are milliseconds with fractions; waits, attempts, streaming and `own_ms` add
/// up to `took_ms`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExchangeView {
    /// `Forbear-Request-Id`.
    pub id: String,
    /// When its head was complete.
    pub started: Moment,
    /// To the last byte.
    pub took_ms: f64,
    /// `None` where no route was found.
    pub upstream: Option<String>,
    /// Name of the route.
    pub route: Option<String>,
    /// Of the request.
    pub method: String,
    /// Of the request, without the query.
    pub path: String,
    /// Digits of a salted hash of whose quota it spent, as in scopes; `None` for nobody's.
    pub credential: Option<String>,
    /// Concurrency keys that it joined.
    pub keys: Vec<String>,
    /// `Forbear-Flow`.
    pub flow: Option<String>,
    /// `Forbear-Run`.
    pub run: Option<String>,
    /// `None` where the client left before it got one.
    pub status: Option<u16>,
    /// As in `forbear_requests_total`.
    pub outcome: String,
    /// `Forbear-Decision`.
    pub decision: String,
    /// In shadow mode, the wait that was not made.
    pub shadow: Option<String>,
    /// A refusal's sentence.
    pub reason: Option<String>,
    /// When it is worth coming back, where a failure said so.
    pub retry_at: Option<Moment>,
    /// Exchanges that stood in line before it.
    pub behind: Option<u32>,
    /// All waits by kind, without those that were none.
    pub waited_ms: BTreeMap<String, f64>,
    /// In the order in which they were sent.
    pub attempts: Vec<AttemptView>,
    /// The response body on its way to the client.
    pub streamed_ms: f64,
    /// The rest: forbear's own time, and the client's.
    pub own_ms: f64,
    /// Request body bytes taken from the client.
    pub bytes_up: u64,
    /// Response body bytes given to the client.
    pub bytes_down: u64,
    /// Exchanges that this one stands for; more than 1 where successes are sampled.
    pub weight: u64,
}

/// One attempt of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttemptView {
    /// From 1.
    pub n: u8,
    /// Waits just before it, by kind.
    pub waited_ms: BTreeMap<String, f64>,
    /// `None` where no answer came.
    pub status: Option<u16>,
    /// What it meant.
    pub class: String,
    /// What failed.
    pub error: Option<String>,
    /// How much of the request went out: `nothing`, `partly`, `answered`.
    pub sent: String,
    /// To the response head, or to the failure.
    pub ms: f64,
    /// "Not before", if the answer said so.
    pub hint: Option<HintView>,
    /// The bucket that the answer named.
    pub bucket: Option<String>,
    /// What it said of the quota, of several the one of which the smallest share was left.
    pub quota: Option<QuotaToldView>,
}

/// What an answer said of a quota.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QuotaToldView {
    /// What tells it from others of the answer, such as `minute`.
    pub name: Option<String>,
    /// Units in a window.
    pub limit: Option<u64>,
    /// Of them, what was left.
    pub remaining: u64,
    /// Until it was renewed, from then.
    pub reset_ms: Option<f64>,
    /// The length of its window.
    pub window_ms: Option<f64>,
}

/// What an upstream said about when to come back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HintView {
    /// The field that decided.
    pub source: String,
    /// As a wait from then.
    pub wait_ms: f64,
    /// As it stood there, where it was kept.
    pub raw: Option<String>,
}
