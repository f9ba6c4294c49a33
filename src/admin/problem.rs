//! Errors of the admin API: `application/problem+json` (RFC 9457) with a sentence and the fix.

use axum::Json;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::backend::ControlError;

/// One error, as it is sent.
#[derive(Clone, Debug, Serialize)]
pub struct Problem {
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    status: u16,
    code: &'static str,
    detail: String,
    #[serde(flatten)]
    more: Option<More>,
}

/// What some problems tell besides the sentence; a field of the name of the variant.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum More {
    /// What there is instead of what was asked for.
    Known(Vec<String>),
    /// What is wrong with a configuration, one sentence each.
    Problems(Vec<String>),
}

impl Problem {
    /// `detail` is a sentence that says what to do.
    pub fn new(status: StatusCode, code: &'static str, detail: String) -> Self {
        Self {
            kind: format!("urn:forbear:{}", code.replace('_', "-")),
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            code,
            detail,
            more: None,
        }
    }

    /// A body or a parameter that cannot be understood.
    pub fn bad_request(detail: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", detail)
    }

    /// A panic was caught.
    pub fn internal() -> Self {
        let detail = "This is a bug of forbear's; the log has the details.".to_owned();
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
    }
}

impl From<ControlError> for Problem {
    fn from(error: ControlError) -> Self {
        let detail = error.to_string();
        let (status, code, more) = match error {
            ControlError::UnknownUpstream { known, .. } => {
                (StatusCode::NOT_FOUND, "unknown_upstream", Some(More::Known(known)))
            }
            ControlError::UnknownPart { known, .. } => {
                (StatusCode::NOT_FOUND, "unknown_part", Some(More::Known(known)))
            }
            ControlError::UnknownExchange { .. } => {
                (StatusCode::NOT_FOUND, "unknown_exchange", None)
            }
            ControlError::LedgerFailed { .. } => {
                (StatusCode::SERVICE_UNAVAILABLE, "ledger_failed", None)
            }
            ControlError::ReloadRefused { problems } => {
                (StatusCode::UNPROCESSABLE_ENTITY, "reload_refused", Some(More::Problems(problems)))
            }
        };
        Self { more, ..Self::new(status, code, detail) }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let media = HeaderValue::from_static("application/problem+json");
        (status, [(CONTENT_TYPE, media)], Json(self)).into_response()
    }
}
