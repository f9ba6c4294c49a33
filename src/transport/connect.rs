//! From an upstream's name to a connection that can carry HTTP.
//!
//! Addresses are raced as RFC 8305 tells, so that a dead IPv6 route costs a quarter of a second
//! and not a time-out. One deadline covers look-up, TCP and TLS. Proxy variables of the
//! environment are not read: where requests go is decided by the configuration alone.
//! [`Connector::Memory`] is the seam at which tests replace the network.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_rustls::TlsConnector;

use super::dns::Resolver;
use super::error::{SendError, SendErrorKind};
use super::tls::{self, Tls};

/// The next address is tried when the last one has had this long (RFC 8305 section 5).
const STAGGER: Duration = Duration::from_millis(250);
/// A connection whose peer vanished is noticed within about 45 s, before the next request finds
/// out, also where a NAT forgets idle flows after a minute.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(20);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(8);
const KEEPALIVE_PROBES: u32 = 3;

/// Anything that carries bytes both ways.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// What a dial of an in-memory upstream returns.
pub type Dialing = Pin<Box<dyn Future<Output = io::Result<DuplexStream>> + Send>>;
/// Opens one more in-memory connection.
pub type Dial = Arc<dyn Fn() -> Dialing + Send + Sync>;

/// How connections to one upstream are made.
pub(super) enum Connector {
    /// Over TCP, and TLS where the scheme asks for it.
    Tcp { resolver: Resolver, tls: Option<Box<Tls>> },
    /// Over pipes within the process.
    Memory(Dial),
}

/// Which protocols may be agreed upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offer {
    /// Whatever the upstream prefers.
    Any,
    /// HTTP/1.1, because the request wants to upgrade.
    Http1,
}

/// A connection on which nothing has been said yet.
pub(super) struct Link {
    pub(super) io: Box<dyn Io>,
    pub(super) is_http2: bool,
}

impl Connector {
    /// Every failure here means that nothing was sent.
    pub(super) async fn connect(&self, offer: Offer, deadline: Instant) -> Result<Link, SendError> {
        match self {
            Self::Memory(dial) => {
                let io = timeout_at(deadline, dial()).await.map_err(|_| late("connect"))?;
                let io = io.map_err(|error| connect_error(&error))?;
                Ok(Link { io: Box::new(io), is_http2: false })
            }
            Self::Tcp { resolver, tls } => {
                let addresses = resolver
                    .resolve(deadline)
                    .await
                    .map_err(|(kind, detail)| unsent(kind, detail))?;
                let tcp = timeout_at(deadline, race(&addresses))
                    .await
                    .map_err(|_| late("connect"))?
                    .map_err(|error| connect_error(&error))?;
                match tls {
                    None => Ok(Link { io: Box::new(tcp), is_http2: false }),
                    Some(tls) => timeout_at(deadline, secure(tcp, tls, offer))
                        .await
                        .map_err(|_| late("the TLS handshake"))?,
                }
            }
        }
    }
}

/// Connects to whichever address answers first; later ones start when earlier ones fail or
/// take long. Those that lose are dropped.
async fn race(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut waiting = addresses.iter().copied();
    let mut running = JoinSet::new();
    let mut failure: Option<io::Error> = None;
    running.extend_with(waiting.next());
    loop {
        tokio::select! {
            biased;
            ended = running.join_next() => match ended {
                Some(Ok(Ok(stream))) => return Ok(stream),
                Some(Ok(Err(error))) => {
                    failure = Some(more_telling(failure, error));
                    running.extend_with(waiting.next());
                }
                Some(Err(broken)) => failure = Some(io::Error::other(broken)),
                None => {
                    return Err(failure.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into()));
                }
            },
            () = sleep(STAGGER), if waiting.len() > 0 => running.extend_with(waiting.next()),
        }
    }
}

trait Race {
    fn extend_with(&mut self, address: Option<SocketAddr>);
}

impl Race for JoinSet<io::Result<TcpStream>> {
    fn extend_with(&mut self, address: Option<SocketAddr>) {
        if let Some(address) = address {
            self.spawn(connect_to(address));
        }
    }
}

async fn connect_to(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    // Heads and small bodies are written whole, so Nagle's algorithm could only delay them.
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_PROBES);
    SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
    Ok(stream)
}

/// "Refused" says that the host is there; "unreachable" is often only about one family.
fn more_telling(known: Option<io::Error>, new: io::Error) -> io::Error {
    match known {
        Some(known) if new.kind() != io::ErrorKind::ConnectionRefused => known,
        Some(_) | None => new,
    }
}

async fn secure(tcp: TcpStream, tls: &Tls, offer: Offer) -> Result<Link, SendError> {
    let settings = match offer {
        Offer::Any => &tls.any,
        Offer::Http1 => &tls.http1,
    };
    let stream = TlsConnector::from(settings.clone())
        .connect(tls.name.clone(), tcp)
        .await
        .map_err(|error| handshake_error(&error))?;
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    Ok(Link { io: Box::new(stream), is_http2 })
}

fn handshake_error(error: &io::Error) -> SendError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(inner) => unsent(tls::kind_of(inner), format!("TLS handshake: {inner}")),
        None => unsent(SendErrorKind::TlsProtocol, format!("TLS handshake: {}", error.kind())),
    }
}

fn connect_error(error: &io::Error) -> SendError {
    use rustix::io::Errno;
    let ours = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL];
    if error.raw_os_error().is_some_and(|code| ours.iter().any(|e| e.raw_os_error() == code)) {
        return unsent(SendErrorKind::OutOfResources, format!("forbear lacks resources: {error}"));
    }
    #[expect(clippy::wildcard_enum_match_arm, reason = "io::ErrorKind is open")]
    let kind = match error.kind() {
        io::ErrorKind::ConnectionRefused => SendErrorKind::ConnectRefused,
        io::ErrorKind::TimedOut => SendErrorKind::ConnectTimeout,
        _ => SendErrorKind::Connect,
    };
    unsent(kind, format!("connect: {error}"))
}

fn late(phase: &str) -> SendError {
    unsent(SendErrorKind::ConnectTimeout, format!("{phase} took too long"))
}

fn unsent(kind: SendErrorKind, detail: String) -> SendError {
    SendError { kind, nothing_sent: true, detail }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_dead_ipv6_address_does_not_keep_us_from_a_live_ipv4_one() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let live = listener.local_addr().unwrap();
        // Refused where there is IPv6, unreachable where there is none.
        let dead = SocketAddr::from((Ipv6Addr::LOCALHOST, live.port()));

        let stream = race(&[dead, live]).await.unwrap();

        assert_eq!(stream.peer_addr().unwrap(), live);
    }

    #[tokio::test]
    async fn when_every_address_fails_refusal_is_what_is_told() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let refused = listener.local_addr().unwrap();
        drop(listener);
        // A socket of one family cannot reach the broadcast address without asking for it.
        let forbidden = SocketAddr::from((Ipv4Addr::BROADCAST, 9));

        for order in [[refused, forbidden], [forbidden, refused]] {
            let error = race(&order).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        }
    }
}
