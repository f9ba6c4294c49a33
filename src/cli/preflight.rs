//! `forbear preflight`: how long a number of requests would take now, before they are made.

use std::fmt::Write as _;
use std::io::Write;

use super::PreflightArgs;
use super::client::{Client, segment};
use super::control::Failure;
use super::status::span;
use crate::telemetry::view::PreflightView;

/// Asks and tells.
///
/// # Errors
/// When there is no such upstream or route, or nobody to ask.
pub(super) async fn preflight(client: &Client, args: &PreflightArgs) -> Result<(), Failure> {
    let (upstream, requests) = (segment(&args.upstream), args.requests);
    let route = args.route.as_deref().map(|name| format!("&route={}", segment(name)));
    let route = route.unwrap_or_default();
    let path = format!("/api/v1/preflight?upstream={upstream}&requests={requests}{route}");
    let answer = client.get(&path).await?;
    let mut out = anstream::stdout();
    if args.json {
        return Ok(writeln!(out, "{answer}")?);
    }
    let view: PreflightView = serde_json::from_value(answer)
        .map_err(|error| Failure::No(format!("the answer is of another version: {error}")))?;
    Ok(write!(out, "{}", told(&view))?)
}

/// A few lines for people.
fn told(view: &PreflightView) -> String {
    let ms = span;
    let mut text = format!(
        "{} more requests to {} would take {} now, until {}.\n",
        view.requests,
        view.upstream,
        ms(view.takes_ms),
        view.done_at.0,
    );
    let by = match (view.bound_by.as_str(), &view.quota) {
        ("quota", Some(name)) => format!("the quota {name}"),
        ("quota", None) => "its quota".to_owned(),
        ("refusals", _) => "what it served between refusals".to_owned(),
        ("cooldown", _) => "a cooldown".to_owned(),
        ("breaker", _) => "its breaker, which is open".to_owned(),
        ("credential", _) => "a credential that it does not accept".to_owned(),
        _ => format!("their own duration, {} at a time", view.in_flight_max),
    };
    let scope = view.scope.as_deref().map(|scope| format!(" ({scope})")).unwrap_or_default();
    let _ = writeln!(text, "What decides is {by}{scope}.");
    if view.starts_in_ms > 0 {
        let _ = writeln!(text, "The first of them can go in {}.", ms(view.starts_in_ms));
    }
    if view.queued > 0 {
        let _ = writeln!(text, "{} that wait already go before them.", view.queued);
    }
    match view.per_request_ms {
        Some(took) => {
            let _ = writeln!(text, "One takes {took} ms on average.");
        }
        None => text.push_str("Nothing was answered yet, so this counts no time for them.\n"),
    }
    text
}
