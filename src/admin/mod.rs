//! The admin listener: what operators, dashboards and probes ask, and the few things they change.
//!
//! It runs on the control plane's own thread, so a slow reader cannot delay a request. What it
//! shows and changes comes through [`backend::Backend`]; who may ask is decided in [`auth`], before
//! any handler runs. The rate is low and the handlers are many: the one place for axum and tower.

use std::sync::Arc;
use std::time::Duration;

use crate::telemetry::scrape;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::from_fn_with_state;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use tokio::sync::Semaphore;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::set_header::SetResponseHeaderLayer;
use tower_http::timeout::TimeoutLayer;

pub mod backend;

pub mod auth;

mod api;

pub(crate) use api::parse_span;

mod events;

mod exchanges;

mod preflight;

pub mod problem;

pub mod server;

use auth::Access;
use backend::Backend;
use problem::Problem;

/// What a request body may be at most: a reason and a duration, not a document.
const BODY_BYTES_MAX: usize = 16 * 1024;
/// Until the head of an answer; a reload reads files and resolves names, everything else is quick.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);
/// One scrape is written at a time, however many ask and on whichever listener: that bounds the
/// threads and the processor time that scrapers can take from the traffic.
static SCRAPES: Semaphore = Semaphore::const_new(1);

type Shared = Arc<dyn Backend>;

/// Everything: status page, API, metrics and probes.
pub fn router(backend: Shared, access: Arc<Access>) -> Router {
    let readers = Arc::new(Semaphore::new(events::READERS_MAX));
    let follow = async move |State(backend): State<Shared>| events::events(backend, readers).await;
    let api = Router::new()
        .route("/upstreams", get(api::upstreams))
        .route("/upstreams/{upstream}", get(api::upstream))
        .route("/upstreams/{upstream}/breaker", post(api::breaker))
        .route("/upstreams/{upstream}/cooldown/clear", post(api::clear_cooldown))
        .route("/preflight", get(preflight::preflight))
        .route("/keys", get(api::keys))
        .route("/config", get(api::config))
        .route("/events", get(follow))
        .route("/exchanges", get(exchanges::list))
        .route("/exchanges/{id}", get(exchanges::one))
        .route("/reload", post(api::reload))
        .route("/quit", post(api::quit));
    let routes = probes()
        .route("/", get(async || Html(include_str!("status.html"))))
        .nest("/api/v1", api)
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(backend)
        .layer(from_fn_with_state(access, auth::guard));
    layered(routes)
}

/// The read-only listener that may face the pod network: metrics and probes, and nothing else.
pub fn metrics_router(backend: Shared) -> Router {
    let nothing = async |request: Request| {
        let path = request.uri().path();
        let detail = format!("{path}: this listener has /metrics, /healthz and /readyz to read.");
        Problem::new(StatusCode::NOT_FOUND, "not_found", detail)
    };
    let routes = probes().fallback(nothing).method_not_allowed_fallback(nothing);
    layered(routes.with_state(backend))
}

fn probes() -> Router<Shared> {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
}

async fn readyz(State(backend): State<Shared>) -> Response {
    let readiness = backend.ready();
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness)).into_response()
}

/// Writing a thousand upstreams takes tens of milliseconds: too long for the thread that answers the
/// probes, so a thread of its own does it.
async fn metrics(State(backend): State<Shared>) -> Result<Response, Problem> {
    let turn = SCRAPES.acquire().await.map_err(|_| Problem::internal())?;
    let scrape = move || {
        let text = backend.scrape();
        drop(turn);
        text
    };
    let text = tokio::task::spawn_blocking(scrape).await.map_err(|_| Problem::internal())?;
    Ok(([(CONTENT_TYPE, HeaderValue::from_static(scrape::CONTENT_TYPE))], text).into_response())
}

async fn not_found(request: Request) -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "not_found",
        format!(
            "There is nothing at {}. The API is /api/v1/upstreams, /keys, /config, /events, /exchanges and \
             /preflight; \
             besides it there are /metrics, /healthz and /readyz.",
            request.uri().path()
        ),
    )
}

async fn method_not_allowed(request: Request) -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        format!(
            "{} does not answer to {}; the Allow field says to what it does.",
            request.uri().path(),
            request.method()
        ),
    )
}

/// What holds for every answer, the refusals included.
fn layered(routes: Router) -> Router {
    let set = |name: HeaderName, value| {
        SetResponseHeaderLayer::overriding(name, HeaderValue::from_static(value))
    };
    routes
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, ANSWER_TIME_MAX))
        .layer(CatchPanicLayer::custom(|_| Problem::internal().into_response()))
        .layer(set(CACHE_CONTROL, "no-store"))
        .layer(set(X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .layer(set(X_FRAME_OPTIONS, "DENY"))
        .layer(set(REFERRER_POLICY, "no-referrer"))
        .layer(set(
            CONTENT_SECURITY_POLICY,
            "default-src 'none'; connect-src 'self'; script-src 'unsafe-inline'; \
             style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'",
        ))
}

#[cfg(test)]
pub(crate) mod tests;
