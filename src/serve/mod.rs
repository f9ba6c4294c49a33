//! Sockets towards the downstream side.
//!
//! hyper speaks HTTP, but it is no policy: it takes two `Host` fields, bare line feeds, a repeated
//! `Content-Length`, and waits for ever for a connection that says nothing. So a strict gate sits
//! between the socket and hyper. It reads every byte first, lets only whole and valid message heads
//! through, one message at a time, and turns anything else into an [`Intake::Refused`] that takes the
//! same way out as every other answer.
//!
//! Reading order: [`worker`] binds and starts, `listener` accepts, `session` leads one socket through
//! its life, `gate` (over `scanner`, `head`, `chunked`
//! and `fields`) guards HTTP/1.1, `h2gate` guards HTTP/2,
//! `service` hands exchanges over, [`connection`] is what all of them know of one connection, and
//! [`shutdown`] ends it all.

pub mod connection;
pub mod shutdown;
pub mod worker;

mod chunked;
mod fields;
mod gate;
mod h2gate;
mod head;
mod listener;
mod scanner;
mod service;
mod session;
mod target;
mod watchdog;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use hyper::body::Incoming;

use crate::config::settings::ProxySettings;
use crate::proxy::reject::Code;
use connection::Connection;

/// The error of a response body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Whatever turns a request into a response.
pub trait Exchanges: Clone + Send + Sync + 'static {
    /// The body of its responses.
    type Body: http_body::Body<Data = Bytes, Error = BoxError> + Send + Unpin + 'static;

    /// Leads one exchange. The future is dropped when the downstream side hangs up.
    fn call(
        &self,
        intake: Intake,
        connection: Arc<Connection>,
    ) -> impl Future<Output = http::Response<Self::Body>> + Send + 'static;

    /// The answer of an exchange that a bug has ended: a panic ends one exchange and nothing else.
    fn panicked(&self) -> http::Response<Self::Body>;
}

/// What came in.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all are requests, and none is kept")]
pub enum Intake {
    /// A request whose head is valid. Its body may still turn out to be faulty: then reading it fails
    /// and [`Connection::violation`] says why.
    Request(http::Request<Incoming>),
    /// Something that must only be answered; the connection closes behind the answer.
    Refused(Violation),
}

/// What a peer did against the rules, with the answer that it gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// 400, 408, 413, 414, 431, 501 or 505.
    pub status: StatusCode,
    /// `BadRequest` or `TooLarge`.
    pub code: Code,
    /// Names the thing, what was found, and the fix. Never holds a field value that may be secret.
    pub detail: String,
}

impl Violation {
    pub(crate) fn bad(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, Code::BadRequest, detail)
    }

    pub(crate) fn too_large(status: StatusCode, detail: impl Into<String>) -> Self {
        Self::new(status, Code::TooLarge, detail)
    }

    pub(crate) fn new(status: StatusCode, code: Code, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into() }
    }
}

/// Which of the configured listeners a connection came through.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListenerId {
    /// One of `proxy.listen`, by its place in the list.
    Main(usize),
    /// `upstreams.<name>.listen`.
    Upstream(Arc<str>),
}

/// What is spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 or 1.0.
    Http1,
    /// HTTP/2 in plain text, by prior knowledge.
    Http2,
}

/// The time limits that belong to a connection rather than to an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// `proxy.header_timeout`: from the first byte of a head to its last.
    pub header: Duration,
    /// `proxy.keep_alive_timeout`: between two exchanges.
    pub keep_alive: Duration,
}

impl From<&ProxySettings> for Timeouts {
    fn from(settings: &ProxySettings) -> Self {
        Self { header: settings.header_timeout, keep_alive: settings.keep_alive_timeout }
    }
}
