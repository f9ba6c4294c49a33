//! `GET /api/v1/preflight?upstream=github&requests=500`: how long so many requests would take now.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use serde::Deserialize;

use super::Shared;
use super::problem::Problem;
use crate::telemetry::view::PreflightView;

/// The route of requests that no other one matches.
const DEFAULT_ROUTE: &str = "default";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    upstream: String,
    requests: u32,
    route: Option<String>,
}

pub(super) async fn preflight(
    State(backend): State<Shared>,
    which: Result<Query<Which>, QueryRejection>,
) -> Result<Json<PreflightView>, Problem> {
    let Query(Which { upstream, requests, route }) = which.map_err(|rejection| {
        let why = rejection.body_text();
        Problem::bad_request(format!(
            "{why}. Write ?upstream=NAME&requests=500, and &route=NAME if it is about one route."
        ))
    })?;
    if requests == 0 {
        let detail = "`requests` is 0; write how many requests it is about.".to_owned();
        return Err(Problem::bad_request(detail));
    }
    let route = route.as_deref().unwrap_or(DEFAULT_ROUTE);
    Ok(Json(backend.preflight(&upstream, route, requests)?))
}
