//! Binds every listener first, then starts the workers.
//!
//! A worker is a thread with a runtime of its own that accepts on every address: the kernel spreads
//! connections over sockets bound with `SO_REUSEPORT`, and an exchange never changes threads. All
//! addresses are bound before anything runs, so a start either succeeds whole or says what is in the
//! way, and the addresses really bound are known (port 0 lets the system choose).

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;

use rustix::process::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::{mpsc, watch};

use super::session::Host;
use super::shutdown::{Accept, Connections, Load, Orders};
use super::{Exchanges, ListenerId, Timeouts, listener};
use crate::config::settings::{ProxySettings, Settings};

/// Connections that the kernel keeps per socket until they are accepted; it cuts this to its own limit.
const BACKLOG: i32 = 1024;

/// Every listener bound, and nothing running.
#[derive(Debug)]
pub struct Bound {
    /// One set of sockets per worker, each in the order of `addresses`.
    sockets: Vec<Vec<TcpListener>>,
    addresses: Vec<(ListenerId, SocketAddr)>,
    connections_max: usize,
    timeouts: Timeouts,
}

/// An address that cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("{setting}: cannot listen on {address}: {why}. {fix}")]
pub struct BindError {
    /// The setting that asks for it, as the user typed it.
    pub setting: String,
    /// What it asks for.
    pub address: SocketAddr,
    /// What the system said.
    pub why: io::Error,
    /// What to do.
    pub fix: &'static str,
}

impl Bound {
    /// Binds all of `proxy.listen` and of the upstreams' own listeners.
    pub fn bind(settings: &Settings) -> Result<Self, BindError> {
        let upstreams = settings.upstreams.iter().filter_map(|upstream| {
            let setting = format!("upstreams.{}.listen", upstream.name);
            Some((setting, ListenerId::Upstream(Arc::clone(&upstream.name)), upstream.listen?))
        });
        let main = settings.proxy.listen.iter().enumerate();
        let main =
            main.map(|(i, address)| ("proxy.listen".to_owned(), ListenerId::Main(i), *address));
        Self::bind_all(&settings.proxy, main.chain(upstreams))
    }

    pub(super) fn bind_all(
        proxy: &ProxySettings,
        wanted: impl Iterator<Item = (String, ListenerId, SocketAddr)>,
    ) -> Result<Self, BindError> {
        let workers = proxy.workers.max(1);
        let mut sockets: Vec<Vec<TcpListener>> = (0..workers).map(|_| Vec::new()).collect();
        let mut addresses = Vec::new();
        for (setting, id, asked) in wanted {
            let (address, bound) = bind_for(asked, workers).map_err(|why| BindError {
                setting,
                address: asked,
                fix: fix_for(&why),
                why,
            })?;
            for (set, socket) in sockets.iter_mut().zip(bound) {
                set.push(socket);
            }
            addresses.push((id, address));
        }
        let connections_max = proxy.connections_max;
        Ok(Self { sockets, addresses, connections_max, timeouts: Timeouts::from(proxy) })
    }

    /// The addresses really bound.
    pub fn addresses(&self) -> &[(ListenerId, SocketAddr)] {
        &self.addresses
    }

    /// Starts one thread per worker. Fails if a thread or its runtime cannot be made.
    pub fn start<E: Exchanges>(self, exchanges: &E) -> io::Result<Running> {
        let timeouts = self.timeouts;
        let (orders, watching) = watch::channel(Orders {
            accept: Accept::Yes,
            connections: Connections::Keep,
            timeouts,
        });
        let load = Arc::new(Load::new(self.addresses.len()));
        let (alive, all_gone) = mpsc::channel(1);
        let share = (self.connections_max / self.sockets.len().max(1)).max(1);
        let mut threads = Vec::new();
        for (number, sockets) in self.sockets.into_iter().enumerate() {
            let ids = self.addresses.iter().map(|(id, _)| id.clone());
            let listeners: Vec<_> = ids.zip(sockets).collect();
            let host =
                Host { exchanges: exchanges.clone(), orders: watching.clone(), load: load.clone() };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let alive = alive.clone();
            let thread = std::thread::Builder::new().name(format!("worker-{number}"));
            threads.push(thread.spawn(move || {
                let served = runtime.block_on(work(listeners, share, host));
                if let Err(error) = served {
                    tracing::error!(%error, "a worker cannot use its listeners");
                }
                drop(alive);
            })?);
        }
        Ok(Running { orders, load, addresses: self.addresses, threads, all_gone })
    }
}

async fn work<E: Exchanges>(
    listeners: Vec<(ListenerId, TcpListener)>,
    connections_max: usize,
    host: Host<E>,
) -> io::Result<()> {
    let listeners: io::Result<Vec<_>> = listeners
        .into_iter()
        .map(|(id, socket)| Ok((id, tokio::net::TcpListener::from_std(socket)?)))
        .collect();
    listener::serve(listeners?, connections_max, host).await;
    Ok(())
}

/// The workers at work. Dropped, it aborts them.
#[derive(Debug)]
pub struct Running {
    orders: watch::Sender<Orders>,
    load: Arc<Load>,
    addresses: Vec<(ListenerId, SocketAddr)>,
    threads: Vec<JoinHandle<()>>,
    all_gone: mpsc::Receiver<()>,
}

impl Running {
    /// The addresses really bound.
    pub fn addresses(&self) -> &[(ListenerId, SocketAddr)] {
        &self.addresses
    }

    /// Open connections and exchanges under way.
    pub fn load(&self) -> &Arc<Load> {
        &self.load
    }

    /// New time limits, for connections that begin from now on.
    pub fn set_timeouts(&self, timeouts: Timeouts) {
        self.orders.send_modify(|orders| orders.timeouts = timeouts);
    }

    /// Every connection closes behind its last response: HTTP/1.1 with `Connection: close`, HTTP/2
    /// with GOAWAY. New ones are still accepted, and get one answer.
    pub fn drain(&self) {
        self.orders.send_modify(|orders| {
            if orders.connections == Connections::Keep {
                orders.connections = Connections::Close;
            }
        });
    }

    /// Closes the listeners. A worker ends once its last connection has gone.
    pub fn stop_accepting(&self) {
        self.orders.send_modify(|orders| orders.accept = Accept::No);
    }

    /// Ends everything at once; exchanges under way are dropped.
    pub fn abort(&self) {
        self.orders.send_modify(|orders| {
            orders.accept = Accept::No;
            orders.connections = Connections::Abort;
        });
    }

    /// Until every worker has ended, after [`Self::stop_accepting`] or [`Self::abort`].
    pub async fn ended(&mut self) {
        // Nothing is ever sent; the channel closes with the last worker.
        while self.all_gone.recv().await.is_some() {}
        for thread in self.threads.drain(..) {
            // A panic of a worker has been reported by the panic hook.
            let _ = thread.join();
        }
    }
}

/// Raises the soft limit of open files to the hard one, and tells what it is now. Each connection takes
/// one, and each attempt another; the usual soft limit of 1024 is a relic of `select`.
pub fn raise_open_files() -> Option<u64> {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        // Where that is forbidden, accepting pauses when descriptors run out.
        let _ = setrlimit(Resource::Nofile, limit);
    }
    getrlimit(Resource::Nofile).current
}

/// As many sockets as there are workers, on one address.
fn bind_for(asked: SocketAddr, workers: usize) -> io::Result<(SocketAddr, Vec<TcpListener>)> {
    if workers > 1 {
        // With SO_REUSEPORT a second forbear of the same user would get half of the connections
        // instead of an error; without it, an address in use is told.
        bind(asked, ReusePort::No)?;
    }
    let reuse = if workers > 1 { ReusePort::Yes } else { ReusePort::No };
    let first = bind(asked, reuse)?;
    let address = first.local_addr()?.as_socket().ok_or(io::ErrorKind::Unsupported)?;
    let mut sockets = vec![first];
    while sockets.len() < workers {
        sockets.push(bind(address, reuse)?);
    }
    for socket in &sockets {
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
    }
    Ok((address, sockets.into_iter().map(TcpListener::from).collect()))
}

/// Whether other sockets may share the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReusePort {
    Yes,
    No,
}

fn bind(address: SocketAddr, reuse: ReusePort) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of a former process that linger in TIME_WAIT must not keep a restart from binding.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse == ReusePort::Yes)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn fix_for(why: &io::Error) -> &'static str {
    let kind = why.kind();
    if kind == io::ErrorKind::AddrInUse {
        "Stop the process that listens there, or choose another port."
    } else if kind == io::ErrorKind::PermissionDenied {
        "Choose a port of 1024 or above, or grant the capability CAP_NET_BIND_SERVICE."
    } else {
        "Use an address of this machine: 127.0.0.1 for local clients, 0.0.0.0 for all."
    }
}
