//! One attempt's bytes towards an upstream; knows nothing of policy.
//!
//! [`send`] takes a request and gives the head of a response with its streaming body, or a
//! [`SendError`] that says what failed and whether anything was sent. It never
//! repeats a request that may have left this process: the only thing it does on its own is to
//! take another connection when a pooled one turned out to be closed before it took the request.
//!
//! Read in this order: `connect` (with `dns`, `tls`), `http` (with `head`, `failure`, `meter`, `wake`), `pool`,
//! `body` (with `source`, `recording`), `response`.

mod connect;
mod dns;
mod failure;
mod head;
mod http;
mod meter;
mod recording;
mod response;
mod source;
mod timer;
mod tls;
mod wake;

pub mod body;
pub mod error;
pub mod pool;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use ::http::uri::{Authority, Scheme as UriScheme};
use ::http::{Request, Response, StatusCode};
use tokio::time::Instant;

pub use self::body::{BodyFault, Replay, ReplayMemory, ReplayState, RequestBody, Source};
pub use self::connect::{Dial, Dialing};
pub use self::response::{ResponseBody, ResponseBodyError};
pub use self::tls::TargetError;

use self::connect::{Connector, Offer};
use self::dns::Resolver;
use self::error::{SendError, SendErrorKind};
use self::http::{Connection, Failure, Open};
use self::response::Lease;
use self::tls::Tls;
use crate::config::settings::{Origin, Scheme, TlsConfig};

/// After this many pooled connections turned out to be closed, the next one is new: an upstream
/// that restarted has closed them all.
const POOLED_TRIES_MAX: u32 = 4;

/// One upstream as this layer sees it. Connections belong to the target that opened them, so a
/// changed origin or certificate is a new target.
pub struct Target {
    id: u64,
    scheme: UriScheme,
    authority: Authority,
    connect_timeout: Duration,
    connector: Connector,
    open: Arc<AtomicI64>,
}

impl Target {
    /// Reads the certificate files. `connect_timeout` covers look-up, TCP and TLS together.
    ///
    /// # Errors
    ///
    /// A file that is missing or holds no certificate or key, or a host that cannot be one.
    pub fn new(
        origin: &Origin,
        tls: &TlsConfig,
        connect_timeout: Duration,
    ) -> Result<Self, TargetError> {
        let (scheme, tls) = match origin.scheme {
            Scheme::Http => (UriScheme::HTTP, None),
            Scheme::Https => (UriScheme::HTTPS, Some(Box::new(Tls::new(origin, tls)?))),
        };
        let host = &origin.host;
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let authority = Authority::try_from(format!("{host}:{}", origin.port))
            .map_err(|_| TargetError::Settings(format!("{host} is no host name")))?;
        let resolver = Resolver::new(&origin.host, origin.port);
        let connector = Connector::Tcp { resolver, tls };
        Ok(Self::with(connector, scheme, authority, connect_timeout))
    }

    /// An upstream within the process, over pipes: the seam for tests with a paused clock.
    pub fn in_memory(dial: Dial, connect_timeout: Duration) -> Self {
        let authority = Authority::from_static("memory");
        Self::with(Connector::Memory(dial), UriScheme::HTTP, authority, connect_timeout)
    }

    /// Unique within the process; the key of the pool.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Open connections of all workers, idle ones included.
    pub fn open_connections(&self) -> i64 {
        self.open.load(Ordering::Relaxed)
    }

    fn with(
        connector: Connector,
        scheme: UriScheme,
        authority: Authority,
        connect_timeout: Duration,
    ) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let open = Arc::new(AtomicI64::new(0));
        Self { id, scheme, authority, connect_timeout, connector, open }
    }

    fn count_open(&self) -> Open {
        Open::new(&self.open)
    }

    fn pseudo_fields(&self) -> (&UriScheme, &Authority) {
        (&self.scheme, &self.authority)
    }
}

/// How one attempt is sent.
#[derive(Clone, Copy, Debug)]
pub struct SendOptions {
    /// From here to the response head, connecting included.
    pub head_timeout: Duration,
    /// Between two pieces of the response body.
    pub idle_timeout: Duration,
    /// Use no pooled connection.
    pub fresh: bool,
}

/// Sends one attempt. The request has its final head: an origin-form URI and `Host`; framing
/// fields are made here from the body. Trailers of an HTTP/1.1 request are sent where its
/// `Trailer` field names them. A response 101 carries hyper's upgrade; every other informational
/// response is swallowed. Dropping the future or the response's body ends the attempt, and with
/// it its connection or stream.
///
/// # Errors
///
/// See [`SendError`]; the request body's own fault is in [`Replay::fault`].
pub fn send(
    target: &Arc<Target>,
    mut request: Request<RequestBody>,
    options: SendOptions,
) -> impl Future<Output = Result<Response<ResponseBody>, SendError>> + Send {
    let now = timer::now();
    let deadline = timer::later(now, options.head_timeout);
    let upload = request.body().upload();
    let asked_upgrade = head::wants_upgrade(&request);
    let mut pooled_tries = if options.fresh || asked_upgrade { 0 } else { POOLED_TRIES_MAX };
    // A block, since an `async fn` would carry its arguments twice, and this one's are large.
    async move {
        loop {
            let pooled = if pooled_tries > 0 { pool::take(target, now) } else { None };
            pooled_tries = pooled_tries.saturating_sub(1);
            let is_reused = pooled.is_some();
            let mut connection = match pooled {
                Some(connection) => connection,
                // Boxed, so that requests that find one do not carry what making one needs.
                None => Box::pin(connect(target, asked_upgrade, deadline)).await?,
            };
            if let (false, Connection::Http2(shared)) = (is_reused, &connection) {
                pool::share(target, shared);
            }
            match connection.exchange(request, &upload, target, is_reused, deadline).await {
                Ok(response) => {
                    let lease = Lease {
                        target: target.clone(),
                        connection: None,
                        upload,
                        is_reusable: false,
                    };
                    let idle_timeout = options.idle_timeout;
                    return receive(response, connection, lease, asked_upgrade, idle_timeout);
                }
                // The pooled connection was gone before it took the request: nothing happened.
                Err(Failure { request: Some(untouched), .. }) if is_reused => request = *untouched,
                Err(failure) => return Err(failure.error),
            }
        }
    }
}

/// One more connection.
async fn connect(
    target: &Target,
    for_upgrade: bool,
    deadline: Instant,
) -> Result<Connection, SendError> {
    let by = timer::after(target.connect_timeout).min(deadline);
    let offer = if for_upgrade { Offer::Http1 } else { Offer::Any };
    let link = target.connector.connect(offer, by).await?;
    Connection::open(link, target).await
}

/// Checks the head, and binds what the attempt holds to the life of the body.
fn receive(
    mut response: Response<hyper::body::Incoming>,
    connection: Connection,
    lease: Lease,
    asked_upgrade: bool,
    idle_timeout: Duration,
) -> Result<Response<ResponseBody>, SendError> {
    let is_reusable = head::vet(&mut response, asked_upgrade).map_err(|wrong| SendError {
        kind: SendErrorKind::BadResponse,
        nothing_sent: false,
        detail: wrong.to_owned(),
    })?;
    let connection = match connection {
        Connection::Http1(upgraded) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
            upgraded.hand_over();
            None
        }
        connection @ (Connection::Http1(_) | Connection::Http2(_)) => Some(connection),
    };
    let lease = Lease { connection, is_reusable, ..lease };
    Ok(response.map(|incoming| ResponseBody::new(incoming, lease, idle_timeout)))
}
