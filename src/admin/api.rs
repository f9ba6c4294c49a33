//! The handlers of `/api/v1`. Each change leaves one line in the log that says who wanted what.

use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Shared;
use super::backend::{ControlError, ForceBreaker, ForcedState};
use super::problem::Problem;
use crate::telemetry::view::{KeyView, ReloadReport, UpstreamView};

/// How long an override lasts if nobody says: long enough for an incident, too short to be
/// forgotten.
const OVERRIDE_DEFAULT: Duration = Duration::from_secs(3600);
/// A reason is a sentence.
const REASON_CHARS_MAX: usize = 200;

type Body = Result<Bytes, BytesRejection>;

pub(super) async fn upstreams(State(backend): State<Shared>) -> Json<Vec<UpstreamView>> {
    Json(backend.upstreams())
}

pub(super) async fn upstream(
    State(backend): State<Shared>,
    Path(name): Path<String>,
) -> Result<Json<UpstreamView>, Problem> {
    let all = backend.upstreams();
    if let Some(view) = all.iter().find(|view| view.name == name) {
        return Ok(Json(view.clone()));
    }
    let known = all.into_iter().map(|view| view.name).collect();
    Err(ControlError::UnknownUpstream { name, known }.into())
}

pub(super) async fn keys(State(backend): State<Shared>) -> Json<Vec<KeyView>> {
    Json(backend.keys())
}

pub(super) async fn config(State(backend): State<Shared>) -> Json<serde_json::Value> {
    Json(backend.config())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BreakerBody {
    state: ForcedState,
    reason: String,
    #[serde(rename = "for")]
    for_: Option<String>,
    route: Option<String>,
}

pub(super) async fn breaker(
    State(backend): State<Shared>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<UpstreamView>, Problem> {
    let BreakerBody { state, reason, for_, route } = read(&headers, body)?;
    let reason = reason.trim().to_owned();
    if reason.is_empty() || reason.chars().any(char::is_control) {
        let detail = "`reason` must say in one line why the breaker is overridden.";
        return Err(Problem::bad_request(detail.to_owned()));
    }
    if reason.chars().count() > REASON_CHARS_MAX {
        let detail = format!("`reason` may have {REASON_CHARS_MAX} characters at most.");
        return Err(Problem::bad_request(detail));
    }
    let for_ = match for_.as_deref() {
        None => OVERRIDE_DEFAULT,
        Some(text) => parse_span(text).ok_or_else(|| {
            let detail = format!("`for` is {text:?}; write a time with a unit, such as 30m or 1h.");
            Problem::bad_request(detail)
        })?,
    };
    let request = ForceBreaker { state, reason, for_, route };
    let view = backend.force_breaker(&name, request)?;
    // Whoever is told that it is done can rely on it.
    backend.kept().await;
    Ok(Json(view))
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClearBody {
    scope: Option<String>,
}

pub(super) async fn clear_cooldown(
    State(backend): State<Shared>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<UpstreamView>, Problem> {
    let ClearBody { scope } = read(&headers, body)?;
    Ok(Json(backend.clear_cooldown(&name, scope.as_deref())?))
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct NoBody {}

pub(super) async fn reload(
    State(backend): State<Shared>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<ReloadReport>, Problem> {
    let NoBody {} = read(&headers, body)?;
    tracing::info!("reloading the configuration because the admin API was asked to");
    Ok(Json(backend.reload().await?))
}

pub(super) async fn quit(
    State(backend): State<Shared>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<serde_json::Value>), Problem> {
    let NoBody {} = read(&headers, body)?;
    tracing::info!("draining because the admin API was asked to");
    backend.quit();
    Ok((StatusCode::ACCEPTED, Json(serde_json::json!({ "draining": true }))))
}

/// A JSON body; an empty one stands for `{}`. The content type is asked for because a browser
/// cannot send this one to another origin without asking first.
fn read<T: DeserializeOwned>(headers: &HeaderMap, body: Body) -> Result<T, Problem> {
    let body = body.map_err(|rejection| {
        Problem::new(rejection.status(), "bad_body", format!("{}.", rejection.body_text()))
    })?;
    let media = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media = media.split(';').next().unwrap_or_default().trim();
    if !body.is_empty() && !media.eq_ignore_ascii_case("application/json") {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            "A body must be JSON and say so: `Content-Type: application/json`.".to_owned(),
        ));
    }
    let text: &[u8] = if body.is_empty() { b"{}" } else { &body };
    serde_json::from_slice(text)
        .map_err(|error| Problem::bad_request(format!("The body cannot be understood: {error}.")))
}

/// `90s`, `30m`, `1h`, `2d`: whole, more than zero.
pub(crate) fn parse_span(text: &str) -> Option<Duration> {
    let text = text.trim();
    let unit_at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(unit_at)?;
    let number: u64 = number.parse().ok()?;
    let span = match unit.trim() {
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number.checked_mul(60)?),
        "h" => Duration::from_secs(number.checked_mul(3600)?),
        "d" => Duration::from_secs(number.checked_mul(86_400)?),
        _ => return None,
    };
    (!span.is_zero()).then_some(span)
}
