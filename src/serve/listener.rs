//! The accept loop of one worker, over all listeners.
//!
//! A place is taken before a connection is accepted, so a full forbear leaves new connections to the
//! kernel's queue instead of closing them. One loop accepts from all listeners: with a loop each, idle
//! ones would sit on a place while they wait. No error ends the loop.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::connection::Connection;
use super::session::{self, Host};
use super::shutdown::{Accept, Connections, Seat};
use super::{Exchanges, ListenerId};

/// Pauses when the process or the system has no file descriptors left: the first, and the longest.
/// Accepting at once again would only burn a core until one is free.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// There is room again once this part of the places is free.
const ROOM_AGAIN: usize = 8;

/// Accepts until told to stop, then stays until told to abort or the last connection has gone.
pub(super) async fn serve<E: Exchanges>(
    listeners: Vec<(ListenerId, TcpListener)>,
    connections_max: usize,
    mut host: Host<E>,
) {
    let places = Arc::new(Semaphore::new(connections_max));
    let mut orders = host.orders.clone();
    tokio::select! {
        () = accept_loop(&listeners, &places, connections_max, &mut host) => {}
        _ = orders.wait_for(|orders| orders.accept == Accept::No) => {}
    }
    drop(listeners);
    let all = u32::try_from(connections_max).unwrap_or(u32::MAX);
    tokio::select! {
        // An error means that whoever gives orders has gone, which is an order to end.
        _ = orders.wait_for(|orders| orders.connections == Connections::Abort) => {}
        _ = places.acquire_many(all) => {}
    }
}

async fn accept_loop<E: Exchanges>(
    listeners: &[(ListenerId, TcpListener)],
    places: &Arc<Semaphore>,
    connections_max: usize,
    host: &mut Host<E>,
) {
    let mut pause = PAUSE_MIN;
    let mut turn = 0;
    let mut was_full = false;
    // The semaphore is never closed.
    while let Ok(place) = Arc::clone(places).acquire_owned().await {
        turn += 1;
        let free = places.available_permits();
        if free == 0 && !was_full {
            tracing::warn!(
                "as many connections as this worker's share of proxy.connections_max permits; \
                 further ones wait until one closes"
            );
        }
        // Said again only after there was room for a while, or a full forbear would say it at each
        // connection.
        was_full = free == 0 || (was_full && free < connections_max.div_ceil(ROOM_AGAIN));
        match accept_any(listeners, turn).await {
            Ok((index, id, socket, peer)) => {
                pause = PAUSE_MIN;
                // Answers are written in whole pieces; waiting for more would only delay them. A
                // failure means that the peer has gone, which reading will tell.
                let _ = socket.set_nodelay(true);
                // A connection that is gone already has no address; nobody will read what it says.
                let local = socket.local_addr().unwrap_or(peer);
                let connection = Arc::new(Connection::new(peer, local, id));
                let seat = Seat::take(&host.load, index, place);
                tokio::spawn(session::run(socket, connection, Some(seat), host.clone()));
            }
            Err(error) => {
                host.load.accept_failed();
                if is_exhaustion(&error) {
                    tracing::warn!(%error, "cannot accept connections; raise the limit of open files");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }
}

/// The next connection of any listener; `turn` rotates who is asked first.
async fn accept_any(
    listeners: &[(ListenerId, TcpListener)],
    turn: usize,
) -> io::Result<(usize, ListenerId, TcpStream, SocketAddr)> {
    poll_fn(|cx| {
        let count = listeners.len();
        let order = listeners.iter().enumerate().cycle().skip(turn % count.max(1)).take(count);
        for (index, (id, listener)) in order {
            if let Poll::Ready(accepted) = listener.poll_accept(cx) {
                return Poll::Ready(
                    accepted.map(|(socket, peer)| (index, id.clone(), socket, peer)),
                );
            }
        }
        Poll::Pending
    })
    .await
}

/// Whether an error will last until something else is closed; any other is about one connection only.
fn is_exhaustion(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let exhausted = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    error.raw_os_error().is_some_and(|code| exhausted.iter().any(|e| e.raw_os_error() == code))
}
