//! A report of forbear's own to whoever collects: spans, or what was counted in all.
//!
//! It takes the same transport as an attempt, without the policy: no queue, no breaker, no retry, since
//! nobody waits for it.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, response};
use http_body_util::{BodyExt, Limited};
use tokio::time::timeout;

use crate::config::secret::Secret;
use crate::config::settings::Origin;
use crate::transport::{Replay, ReplayMemory, SendOptions, Source, Target, send};

/// An answer is read to its end up to this size, so that its connection can be used again.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// One request.
pub(super) struct Report<'a> {
    pub(super) method: Method,
    pub(super) origin: &'a Origin,
    pub(super) path: String,
    /// Fields with their secrets, names in lower case.
    pub(super) headers: &'a [(String, Secret)],
    pub(super) content_type: &'static str,
    pub(super) body: Bytes,
    /// To the head of the answer, and between two pieces of its body.
    pub(super) time_max: Duration,
}

/// Why there was no answer.
pub(super) enum NotSent {
    /// It cannot be said in HTTP, now or later.
    Illegal(&'static str),
    /// As told by the transport.
    Failed(String),
}

impl Report<'_> {
    /// Sends it once, and gives the head of the answer, whatever that says.
    pub(super) async fn send(self, target: &Arc<Target>) -> Result<response::Parts, NotSent> {
        let fields = self.fields().ok_or(NotSent::Illegal("a field is not legal"))?;
        let uri = Uri::try_from(self.path);
        let memory = Arc::new(ReplayMemory::new(0));
        let whole = Replay::new(Source::Full(self.body), 0, memory, self.time_max);
        let body = whole.attempt().ok_or(NotSent::Illegal("its body cannot be sent"))?;
        let mut request = Request::new(body);
        *request.method_mut() = self.method;
        *request.uri_mut() = uri.map_err(|_| NotSent::Illegal("its path is not legal"))?;
        *request.headers_mut() = fields;
        let options =
            SendOptions { head_timeout: self.time_max, idle_timeout: self.time_max, fresh: false };
        let response =
            send(target, request, options).await.map_err(|error| NotSent::Failed(error.detail))?;
        let (parts, body) = response.into_parts();
        // What it says is of no use; only its end is.
        let rest = pin!(Limited::new(body, ANSWER_BYTES_MAX).collect());
        let _ = timeout(self.time_max, rest).await;
        Ok(parts)
    }

    fn fields(&self) -> Option<HeaderMap> {
        let Origin { host, port, scheme: _ } = self.origin;
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let mut fields = HeaderMap::new();
        for (name, value) in self.headers {
            let mut value = HeaderValue::from_str(value.reveal()).ok()?;
            value.set_sensitive(true);
            fields.insert(HeaderName::from_bytes(name.as_bytes()).ok()?, value);
        }
        fields.insert(HOST, HeaderValue::try_from(format!("{host}:{port}")).ok()?);
        fields.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        let agent = concat!("forbear/", env!("CARGO_PKG_VERSION"));
        fields.insert(USER_AGENT, HeaderValue::from_static(agent));
        Some(fields)
    }
}
