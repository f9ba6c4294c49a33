//! Hands exchanges over: what hyper parsed, or the violation that stands behind it, goes to
//! [`Exchanges::call`], and the response goes back with a guard that tells when it is over.

use std::convert::Infallible;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{CONNECTION, HeaderMap, HeaderValue, UPGRADE};
use http::{Request, Response, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;

use super::connection::Connection;
use super::shutdown::Load;
use super::{BoxError, Exchanges, Intake, Protocol, h2gate};

/// One exchange of one connection.
pub(super) async fn exchange<E: Exchanges>(
    exchanges: E,
    intake: Intake,
    under_way: UnderWay,
) -> Result<Response<Answer<E::Body>>, Infallible> {
    let connection = Arc::clone(&under_way.connection);
    let mut response = {
        // Pinned where it is made: to await it would copy its four kilobytes twice.
        let mut whole = pin!(exchanges.call(intake, Arc::clone(&connection)));
        poll_fn(|cx| {
            catch_unwind(AssertUnwindSafe(|| whole.as_mut().poll(cx)))
                .unwrap_or_else(|_| Poll::Ready(exchanges.panicked()))
        })
        .await
    };
    connection.upgrade_settled(response.status() == StatusCode::SWITCHING_PROTOCOLS);
    if connection.is_closing() && connection.protocol() == Protocol::Http1 {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response.map(|body| Answer { body, under_way, taken: false }))
}

/// The request that hyper parsed, or the violation that stands behind it.
pub(super) fn admit(request: Request<Incoming>, connection: &Connection) -> Intake {
    match connection.protocol() {
        Protocol::Http1 => admit_http1(request, connection),
        Protocol::Http2 => {
            connection.take();
            h2gate::admit(request)
        }
    }
}

fn admit_http1(mut request: Request<Incoming>, connection: &Connection) -> Intake {
    // Only one message is let through at a time, so a violation that is known now is this one's.
    if let Some(violation) = connection.violation() {
        return Intake::Refused(violation);
    }
    let asks = asks_upgrade(request.version(), request.headers());
    if !asks {
        // hyper offers an upgrade to whoever sends `Upgrade`, whatever it names.
        request.extensions_mut().remove::<OnUpgrade>();
    }
    connection.note_request(request.version(), asks);
    Intake::Request(request)
}

/// Whether a request asks to change the protocol: on HTTP/1.1, with both fields, and not to `h2c`,
/// which RFC 9113 section 3.1 has made obsolete. If so, hyper's `OnUpgrade` is among its extensions.
fn asks_upgrade(version: Version, headers: &HeaderMap) -> bool {
    let has_token = |name, token: &str| {
        headers.get_all(name).iter().any(|value| {
            value
                .as_bytes()
                .split(|b| *b == b',')
                .any(|item| item.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
        })
    };
    version == Version::HTTP_11
        && has_token(CONNECTION, "upgrade")
        && headers.contains_key(UPGRADE)
        && !has_token(UPGRADE, "h2c")
}

/// Counts an exchange for as long as it lives, however it ends.
pub(super) struct UnderWay {
    connection: Arc<Connection>,
    load: Arc<Load>,
}

impl UnderWay {
    pub(super) fn begin(connection: &Arc<Connection>, load: &Arc<Load>) -> Self {
        load.exchange_began();
        Self { connection: Arc::clone(connection), load: Arc::clone(load) }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.connection.finish();
        self.load.exchange_ended();
    }
}

/// A response body that tells the connection whether the peer keeps up with it.
pub(super) struct Answer<B> {
    body: B,
    under_way: UnderWay,
    /// Whether hyper has a piece in hand and has not come back.
    taken: bool,
}

impl<B> Answer<B> {
    fn note_taken(&mut self, taken: bool) {
        if self.taken != taken {
            self.taken = taken;
            self.under_way.connection.note_body_taken(taken);
        }
    }
}

impl<B: Body<Data = Bytes, Error = BoxError> + Unpin> Body for Answer<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.note_taken(false);
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        self.note_taken(frame.is_some());
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> Drop for Answer<B> {
    fn drop(&mut self) {
        self.note_taken(false);
    }
}
