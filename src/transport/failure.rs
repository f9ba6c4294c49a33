//! From hyper's errors to ours: what failed, and whether anything was sent.
//!
//! The sentences are our own, because those of the libraries may quote what a peer sent.

use std::error::Error as StdError;
use std::io;

use super::body::BodyFault;
use super::error::{SendError, SendErrorKind};
use super::tls;

/// What is known besides the error itself.
#[derive(Clone, Copy)]
pub(super) struct Facts {
    /// The connection had carried a request before.
    pub(super) is_reused: bool,
    pub(super) is_http2: bool,
    pub(super) nothing_sent: bool,
    /// Not one byte came since the request was given to the connection.
    pub(super) nothing_received: bool,
    pub(super) body_fault: Option<BodyFault>,
}

/// No response head in time.
pub(super) fn late(facts: Facts) -> SendError {
    told(facts, SendErrorKind::HeadTimeout, "no response head in time".to_owned())
}

/// A peer that only ever says "wait".
pub(super) fn too_many_informational(facts: Facts) -> SendError {
    told(facts, SendErrorKind::BadResponse, "too many informational responses".to_owned())
}

/// Classifies what hyper says.
pub(super) fn of_hyper(error: &hyper::Error, facts: Facts) -> SendError {
    if error.is_parse() {
        let detail = if error.is_parse_too_large() {
            "the response head is too large"
        } else {
            "the response is no valid HTTP"
        };
        return told(facts, SendErrorKind::BadResponse, detail.to_owned());
    }
    if let Some(error) = cause::<rustls::Error>(error) {
        return told(facts, tls::kind_of(error), format!("TLS: {error}"));
    }
    if let Some(error) = cause::<h2::Error>(error) {
        return of_http2(error, facts);
    }
    if let Some(error) = cause::<io::Error>(error) {
        return broken(facts, &error.kind().to_string());
    }
    if error.is_canceled() && !facts.nothing_received {
        // The peer spoke before it was asked.
        return told(facts, SendErrorKind::BadResponse, "bytes before the request".to_owned());
    }
    broken(facts, "closed before the response head")
}

fn of_http2(error: &h2::Error, facts: Facts) -> SendError {
    let reason = error.reason().map_or_else(String::new, |reason| reason.to_string());
    if let Some(error) = error.get_io() {
        return broken(facts, &error.kind().to_string());
    }
    // h2 gives the GOAWAY itself as the error only to streams above the last one that the peer
    // processed; all others end with the connection's own error.
    let is_refused = error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM);
    if error.is_remote() && is_refused {
        let facts = Facts { nothing_sent: true, ..facts };
        return told(facts, SendErrorKind::Refused, format!("HTTP/2: {reason}"));
    }
    if error.is_library() {
        return told(facts, SendErrorKind::BadResponse, format!("HTTP/2: {reason}"));
    }
    told(facts, SendErrorKind::Reset, format!("HTTP/2: {reason}"))
}

/// The connection ended. If it had been idle, that is no news about the upstream.
fn broken(facts: Facts, detail: &str) -> SendError {
    let is_stale = facts.is_reused && facts.nothing_received;
    let kind = if is_stale { SendErrorKind::Stale } else { SendErrorKind::Reset };
    let protocol = if facts.is_http2 { "HTTP/2" } else { "HTTP/1.1" };
    told(facts, kind, format!("{protocol} connection: {detail}"))
}

/// A broken request body breaks the attempt in many ways; none of them is the upstream's fault.
fn told(facts: Facts, kind: SendErrorKind, detail: String) -> SendError {
    let nothing_sent = facts.nothing_sent;
    match facts.body_fault {
        Some(fault) => {
            SendError { kind: SendErrorKind::RequestBody, nothing_sent, detail: fault.to_string() }
        }
        None => SendError { kind, nothing_sent, detail },
    }
}

/// The first error of type `T` in the chain. An [`io::Error`] hides what it wraps from
/// [`StdError::source`], so it is opened here.
fn cause<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(current) = next {
        if let Some(found) = current.downcast_ref::<T>() {
            return Some(found);
        }
        let wrapped = current
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
            .map(|inner| inner as &(dyn StdError + 'static));
        next = wrapped.or_else(|| current.source());
    }
    None
}
