//! `GET /api/v1/exchanges/{id}` and `GET /api/v1/exchanges?last=20&run=R&failed=true`: the stories
//! that the ledger keeps.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use serde::Deserialize;

use super::Shared;
use super::backend::ControlError;
use super::problem::Problem;
use crate::store::read::{Filter, Question};
use crate::store::view::ExchangeView;

/// Exchanges that are told if nobody says how many.
const LAST_DEFAULT: u32 = 20;

pub(super) async fn one(
    State(backend): State<Shared>,
    Path(id): Path<String>,
) -> Result<Json<ExchangeView>, Problem> {
    let found = backend.ask_ledger(Question::One(id)).await?;
    let found = found.into_iter().next().map(Json);
    let why = "The ledger gave no exchange.".to_owned();
    found.ok_or_else(|| ControlError::UnknownExchange { why }.into())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    last: Option<u32>,
    run: Option<String>,
    upstream: Option<String>,
    #[serde(default)]
    failed: bool,
}

pub(super) async fn list(
    State(backend): State<Shared>,
    which: Result<Query<Which>, QueryRejection>,
) -> Result<Json<Vec<ExchangeView>>, Problem> {
    let Query(Which { last, run, upstream, failed }) = which.map_err(|rejection| {
        let why = rejection.body_text();
        Problem::bad_request(format!(
            "{why}. Write ?last=20&run=RUN&upstream=NAME&failed=true, or leave some of it out."
        ))
    })?;
    let filter = Filter { last: last.unwrap_or(LAST_DEFAULT), run, upstream, failed };
    Ok(Json(backend.ask_ledger(Question::Last(filter)).await?))
}
