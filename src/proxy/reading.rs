//! What an attempt's end says, read as the API's profile has it.
//!
//! Some APIs say that they limit in the body alone. Where the profile says that a body can change
//! what a response means, its beginning is read before the response is judged, and put back: the
//! client gets every byte as it came. What cannot be a refusal is never held back for that.

use std::borrow::Cow;
use std::io::Read;
use std::time::Duration;

use flate2::read::GzDecoder;
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
    // A success may be a stream or a download, and must not be held back for what it hardly ever
    // says. Refusals that look like one are small JSON documents whose length is announced.
    let is_small = || body.size_hint().exact().is_some_and(|size| size <= BODY_PREFIX as u64);
    let may_be_refusal = status.as_u16() >= 400 || (is_json(headers) && is_small());
    !has_none && coding(headers).is_some() && may_be_refusal
}

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Plain,
    Gzip,
}

/// The coding of a body, if it is one that can be read. Clients ask for gzip without being told to,
/// and hardly any API answers in another one where gzip will do.
pub(super) fn coding(headers: &HeaderMap) -> Option<Coding> {
    let mut codings = headers.get_all(CONTENT_ENCODING).iter();
    let coding = codings.next().map_or(&b"identity"[..], |it| it.as_bytes().trim_ascii());
    let is = |name: &str| coding.eq_ignore_ascii_case(name.as_bytes());
    match codings.next() {
        None if is("identity") => Some(Coding::Plain),
        // RFC 9110 8.4.1.3: they are the same.
        None if is("gzip") || is("x-gzip") => Some(Coding::Gzip),
        Some(_) | None => None,
    }
}

/// The beginning of what is written, however much more is packed into it. What is cut off or
/// broken is read as far as it goes.
fn unpacked(packed: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    // An error says that the rest is not there, which is usual for a beginning.
    let _ = GzDecoder::new(packed).take(BODY_PREFIX as u64).read_to_end(&mut plain);
    plain
}

/// `application/json`, or anything that is written in it (RFC 6839 3.1).
pub(super) fn is_json(headers: &HeaderMap) -> bool {
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
            let (headers, ahead) = (response.headers(), response.body().ahead());
            let body = ahead.map(|ahead| match coding(headers) {
                Some(Coding::Gzip) => Cow::Owned(unpacked(ahead)),
                Some(Coding::Plain) | None => Cow::Borrowed(ahead),
            });
            let status = response.status().as_u16();
            let server = exchange.upstream.state.server_time(now);
            let body = body.as_deref();
            let response = hints::Response { status, headers, body, received, server };
            let (outcome, said) = answered(response, &exchange.upstream.config.dialect);
            if let Some(date) = said.date {
                exchange.upstream.state.hear_date(date, now);
            }
            exchange.upstream.metrics.unread(said.unread.len());
            outcome
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

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(plain: &[u8]) -> Vec<u8> {
        let mut packed = Vec::new();
        let mut encoder = flate2::read::GzEncoder::new(plain, flate2::Compression::default());
        encoder.read_to_end(&mut packed).unwrap();
        packed
    }

    fn headers(fields: &[(http::HeaderName, &'static str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_compressed_beginning_is_read_as_far_as_it_goes_and_no_further_than_the_bound() {
        let text = (0..3_000).map(|n| format!("item {n}, ")).collect::<String>();
        let whole = packed(text.as_bytes());
        assert_eq!(unpacked(&whole), &text.as_bytes()[..BODY_PREFIX]);
        let half = unpacked(&whole[..whole.len() / 4]);
        assert!(half.len() > 1_000 && text.as_bytes().starts_with(&half), "{}", half.len());
        assert_eq!(unpacked(&packed(&vec![0; 5_000_000])).len(), BODY_PREFIX);
        assert_eq!(unpacked(b"no gzip at all"), b"");
    }

    #[test]
    fn only_one_coding_that_is_known_is_read() {
        let of = |values: &[&'static str]| {
            let mut fields = HeaderMap::new();
            for value in values {
                fields.append(CONTENT_ENCODING, value.parse().unwrap());
            }
            coding(&fields)
        };
        assert_eq!(of(&[]), Some(Coding::Plain));
        assert_eq!(of(&["Identity"]), Some(Coding::Plain));
        assert_eq!(of(&["GZIP"]), Some(Coding::Gzip));
        for other in [&["br"][..], &["gzip, gzip"], &["gzip", "gzip"], &["identity", "gzip"], &[""]]
        {
            assert_eq!(of(other), None, "{other:?}");
        }
    }

    #[test]
    fn json_is_what_is_written_in_it() {
        for (kind, expected) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/graphql-response+json", true),
            ("application/x-ndjson", false),
            ("text/event-stream", false),
            ("", false),
        ] {
            assert_eq!(is_json(&headers(&[(CONTENT_TYPE, kind)])), expected, "{kind}");
        }
        assert!(!is_json(&HeaderMap::new()));
    }
}
