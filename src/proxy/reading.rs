//! What an attempt's end says, read as the API's profile has it.
//!
//! Some APIs say that they limit in the body alone. Where the profile says that a body can change
//! what a response means, its beginning is read before the response is judged, and put back: the
//! client gets every byte as it came. What cannot be a refusal is never held back for that.

use std::time::Duration;

use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use http::{Method, Response, StatusCode};
use http_body::Body;

use super::exchange::Exchange;
use crate::policy::classify::{Failure, Observed, answered, classify};
use crate::policy::hints::{self, BODY_PREFIX};
use crate::policy::outcome::Outcome;
use crate::policy::time::MonoTime;
use crate::transport::ResponseBody;
use crate::transport::error::{SendError, SendErrorKind};

/// The beginning of a body is waited for so long; refusals are short and come with their heads.
/// What is not there by then is judged by its fields, while client and place in flight wait.
const PREFIX_TIME_MAX: Duration = Duration::from_secs(1);

/// Waits for the beginning of a body that may change what its response means. When all is there
/// that will be judged; `headed` if the head is enough, and then nothing is waited for.
pub(super) async fn look_ahead(
    exchange: &Exchange<'_>,
    result: &mut Result<Response<ResponseBody>, SendError>,
    headed: MonoTime,
) -> MonoTime {
    let Ok(response) = result else { return headed };
    if !may_tell(exchange, response) {
        return headed;
    }
    let time_max = PREFIX_TIME_MAX.min(exchange.deadline.since(headed));
    // Boxed, so that the many exchanges that need none of it do not carry its state.
    Box::pin(response.body_mut().read_ahead(BODY_PREFIX, time_max)).await;
    exchange.gateway.common.clock.now()
}

/// Whether there is a body that may change what the response means, in a form that can be read.
fn may_tell(exchange: &Exchange<'_>, response: &Response<ResponseBody>) -> bool {
    let (status, body) = (response.status(), response.body());
    if !exchange.upstream.config.dialect.wants_body(status.as_u16()) || body.is_end_stream() {
        return false;
    }
    let has_none = exchange.parts.method == Method::HEAD
        || exchange.upgrade.is_some()
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let headers = response.headers();
    let is_plain = headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .all(|coding| coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity"));
    // A success may be a stream or a download, and must not be held back for what it hardly ever
    // says. Refusals that look like one are small JSON documents whose length is announced.
    let is_small = || body.size_hint().exact().is_some_and(|size| size <= BODY_PREFIX as u64);
    let may_be_refusal = status.as_u16() >= 400 || (is_json(headers) && is_small());
    !has_none && is_plain && may_be_refusal
}

/// `application/json`, or anything that is written in it (RFC 6839 3.1).
fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).map(|value| value.as_bytes());
    let essence = value.and_then(|value| value.split(|byte| *byte == b';').next());
    let subtype = essence.unwrap_or_default().trim_ascii().rsplit(|byte| b"/+".contains(byte));
    subtype.take(1).any(|last| last.eq_ignore_ascii_case(b"json"))
}

/// What the end of an attempt means.
pub(super) fn judge(
    exchange: &Exchange<'_>,
    result: &Result<Response<ResponseBody>, SendError>,
    now: MonoTime,
    took: Duration,
) -> Outcome {
    let received = exchange.anchor.wall(now);
    match result {
        Ok(response) => {
            let response = hints::Response {
                status: response.status().as_u16(),
                headers: response.headers(),
                body: response.body().ahead(),
                received,
            };
            answered(response, &exchange.upstream.config.dialect).0
        }
        Err(error) => {
            let failure = policy_failure(error.kind);
            let observed = Observed::Failed { failure, nothing_sent: error.nothing_sent };
            // A caller in a hurry must not make the upstream look ill: what was configured is the
            // measure.
            classify(observed, received, took, exchange.attempt_timeout())
        }
    }
}

fn policy_failure(kind: SendErrorKind) -> Failure {
    match kind {
        SendErrorKind::Dns | SendErrorKind::DnsTimeout => Failure::Dns,
        SendErrorKind::ConnectRefused | SendErrorKind::Connect => Failure::Connect,
        SendErrorKind::ConnectTimeout => Failure::ConnectTimeout,
        SendErrorKind::OutOfResources => Failure::OutOfResources,
        SendErrorKind::TlsCertificate => Failure::TlsCertificate,
        SendErrorKind::TlsProtocol => Failure::TlsProtocol,
        SendErrorKind::Stale => Failure::Stale,
        SendErrorKind::Reset => Failure::Reset,
        SendErrorKind::Refused => Failure::Refused,
        SendErrorKind::HeadTimeout => Failure::HeadTimeout,
        SendErrorKind::BadResponse => Failure::BadResponse,
        SendErrorKind::RequestBody => Failure::Client,
    }
}
