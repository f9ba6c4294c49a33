//! What the admin listener needs of the rest of the program. The gateway implements it; tests use
//! a fake, so that the API is tested without a proxy.

use std::pin::Pin;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use crate::store::read::Question;
use crate::store::view::ExchangeView;
use crate::telemetry::view::{
    EventView, KeyView, PreflightView, Readiness, ReloadReport, UpstreamView,
};

/// A reload takes a while: it reads files.
pub type Reload<'a> = Pin<Box<dyn Future<Output = Result<ReloadReport, ControlError>> + Send + 'a>>;

/// The ledger is asked by way of its own thread.
pub type Asking<'a> =
    Pin<Box<dyn Future<Output = Result<Vec<ExchangeView>, ControlError>> + Send + 'a>>;

/// The state behind the admin API. Every call but `reload` and `scrape` is quick
/// and does not block.
pub trait Backend: Send + Sync + 'static {
    /// In order of their names.
    fn upstreams(&self) -> Vec<UpstreamView>;
    /// Every pool of every key, those in use first.
    fn keys(&self) -> Vec<KeyView>;
    /// The configuration in force, without secrets.
    fn config(&self) -> serde_json::Value;
    /// Whether traffic should come.
    fn ready(&self) -> Readiness;
    /// The exposition; see [`crate::telemetry::scrape::text`]. Takes a while where there
    /// are many upstreams.
    fn scrape(&self) -> String;
    /// Overrides a breaker, or gives it back to itself.
    ///
    /// # Errors
    /// When the upstream or the route is unknown.
    fn force_breaker(
        &self,
        upstream: &str,
        request: ForceBreaker,
    ) -> Result<UpstreamView, ControlError>;
    /// Forgets cooldowns: of one scope, or all of the upstream's.
    ///
    /// # Errors
    /// When the upstream or the scope is unknown.
    fn clear_cooldown(
        &self,
        upstream: &str,
        scope: Option<&str>,
    ) -> Result<UpstreamView, ControlError>;
    /// How long so many requests would take now, on one route.
    ///
    /// # Errors
    /// When the upstream or the route is unknown.
    fn preflight(
        &self,
        upstream: &str,
        route: &str,
        requests: u32,
    ) -> Result<PreflightView, ControlError>;
    /// Asks the ledger for exchanges, the newest last.
    ///
    /// # Errors
    /// When there is no such exchange, or the ledger does not answer.
    fn ask_ledger(&self, question: Question) -> Asking<'_>;
    /// Reads the configuration again: all or nothing.
    fn reload(&self) -> Reload<'_>;
    /// Drains and stops; returns at once.
    fn quit(&self);
    /// Changes of state from now on.
    fn subscribe(&self) -> broadcast::Receiver<EventView>;
}

/// A person's word against a breaker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForceBreaker {
    /// What it shall do.
    pub state: ForcedState,
    /// Why; shown wherever the breaker is shown. Never empty, no control characters.
    pub reason: String,
    /// Until it decides for itself again; more than zero.
    pub for_: Duration,
    /// The route whose own breaker is meant; the upstream's breaker otherwise.
    pub route: Option<String>,
}

/// What a person can make of a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ForcedState {
    /// No traffic.
    Open,
    /// All traffic, whatever happens.
    Closed,
    /// As it thinks best.
    Auto,
}

/// Why something was not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// There is no such upstream.
    #[error("There is no upstream {name}. Configured: {}.", list(known))]
    UnknownUpstream {
        /// As asked for.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// The upstream has no such route, scope, or breaker of the route's own.
    #[error("Upstream {upstream} has no {what}. It has: {}.", list(known))]
    UnknownPart {
        /// Whose.
        upstream: String,
        /// `route search`, `cooldown for credential 1f`.
        what: String,
        /// What there is.
        known: Vec<String>,
    },
    /// There is no such exchange.
    #[error("{why}")]
    UnknownExchange {
        /// A sentence that says what to do.
        why: String,
    },
    /// The ledger does not answer.
    #[error("The ledger does not answer: {why}.")]
    LedgerFailed {
        /// What happened.
        why: String,
    },
    /// The new configuration cannot be applied; the old one goes on.
    #[error("The configuration was refused and the old one goes on: {}", problems.join("; "))]
    ReloadRefused {
        /// One sentence each, with file, line and fix.
        problems: Vec<String>,
    },
}

/// What there is, for a person who asked for what there is not.
fn list(known: &[String]) -> String {
    if known.is_empty() { "none".to_owned() } else { known.join(", ") }
}
