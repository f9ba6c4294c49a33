//! Names to addresses, with a bound on everything.
//!
//! The system's resolver blocks, so it runs on the runtime's blocking threads; how many of those
//! it may occupy is bounded for the whole process, because a dead name server holds each for tens
//! of seconds. Answers are kept shortly, and a little longer for when the resolver fails.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::error::SendErrorKind;
use super::timer;

/// How long an answer is used without asking again. `getaddrinfo` does not tell the record's own
/// time to live; half a minute follows a failover soon and still spares the resolver.
const FRESH_FOR: Duration = Duration::from_secs(30);
/// How long a former answer is better than none while the resolver fails.
const USABLE_FOR: Duration = Duration::from_secs(300);
/// With a former answer in hand, the resolver gets only this part of the time to connect.
const REFRESH_SHARE: u32 = 4;
/// Look-ups at a time in the process, each of which holds a blocking thread until it ends.
const LOOKUPS_MAX: usize = 16;
/// Addresses kept of one answer. More than this would not be tried within a connect time-out.
const ADDRESSES_MAX: usize = 8;

static LOOKUPS: Semaphore = Semaphore::const_new(LOOKUPS_MAX);

/// Resolves one host, and remembers.
pub(super) struct Resolver {
    host: String,
    port: u16,
    last: Mutex<Option<Answer>>,
}

#[derive(Clone)]
struct Answer {
    addresses: Arc<[SocketAddr]>,
    fresh_until: Instant,
    usable_until: Instant,
}

impl Resolver {
    pub(super) fn new(host: &str, port: u16) -> Self {
        Self { host: host.to_owned(), port, last: Mutex::new(None) }
    }

    /// Addresses in the order in which they should be tried; never empty.
    pub(super) async fn resolve(
        &self,
        deadline: Instant,
    ) -> Result<Arc<[SocketAddr]>, (SendErrorKind, String)> {
        if let Ok(address) = self.host.parse::<IpAddr>() {
            return Ok(Arc::from([SocketAddr::new(address, self.port)]));
        }
        let now = timer::now();
        let last = self.last().clone().filter(|answer| now < answer.usable_until);
        let patience = match &last {
            Some(answer) if now < answer.fresh_until => return Ok(answer.addresses.clone()),
            Some(_) => now + deadline.saturating_duration_since(now) / REFRESH_SHARE,
            None => deadline,
        };
        match timeout_at(patience, look_up(self.host.clone(), self.port)).await {
            Ok(Ok(addresses)) => {
                *self.last() = Some(Answer {
                    addresses: addresses.clone(),
                    fresh_until: timer::after(FRESH_FOR),
                    usable_until: timer::after(USABLE_FOR),
                });
                Ok(addresses)
            }
            failure => last.map(|answer| answer.addresses).ok_or_else(|| match failure {
                Ok(failed) => {
                    let reason = failed.err().map_or_else(String::new, |error| error.to_string());
                    (SendErrorKind::Dns, format!("the name was not resolved: {reason}"))
                }
                Err(_) => (SendErrorKind::DnsTimeout, "the resolver did not answer".to_owned()),
            }),
        }
    }

    fn last(&self) -> std::sync::MutexGuard<'_, Option<Answer>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn look_up(host: String, port: u16) -> io::Result<Arc<[SocketAddr]>> {
    let permit = LOOKUPS.acquire().await.map_err(io::Error::other)?;
    // A task of its own, so that the permit is held until the resolver has really ended, and not
    // only until nobody waits for it any more.
    let found = tokio::spawn(async move {
        let _permit = permit;
        tokio::net::lookup_host((host, port)).await.map(Iterator::collect::<Vec<_>>)
    });
    let addresses = interleave(&found.await.map_err(io::Error::other)??);
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the answer has no address"));
    }
    Ok(addresses.into())
}

/// Alternates address families, beginning with the one the resolver prefers (RFC 8305 section 4).
fn interleave(found: &[SocketAddr]) -> Vec<SocketAddr> {
    let first_is_v6 = found.first().is_some_and(SocketAddr::is_ipv6);
    let (mut preferred, mut other) = (
        found.iter().filter(|a| a.is_ipv6() == first_is_v6),
        found.iter().filter(|a| a.is_ipv6() != first_is_v6),
    );
    let mut order: Vec<SocketAddr> = Vec::with_capacity(ADDRESSES_MAX);
    loop {
        let pair = [preferred.next(), other.next()];
        if pair == [None, None] || order.len() >= ADDRESSES_MAX {
            order.truncate(ADDRESSES_MAX);
            return order;
        }
        for address in pair.into_iter().flatten() {
            if !order.contains(address) {
                order.push(*address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_alternate_and_the_resolvers_preference_comes_first() {
        let parse = |list: &[&str]| -> Vec<SocketAddr> {
            list.iter().map(|text| text.parse().unwrap()).collect()
        };
        let found = parse(&["[::1]:1", "[::2]:1", "[::2]:1", "127.0.0.1:1", "127.0.0.2:1"]);

        let order = interleave(&found);

        assert_eq!(order, parse(&["[::1]:1", "127.0.0.1:1", "[::2]:1", "127.0.0.2:1"]));
    }

    #[test]
    fn of_a_thousand_addresses_only_a_few_are_kept() {
        let found: Vec<SocketAddr> = (1..=1000).map(|port| ([127, 0, 0, 1], port).into()).collect();

        assert_eq!(interleave(&found).len(), ADDRESSES_MAX);
    }

    #[tokio::test]
    async fn a_failing_resolver_does_not_take_away_a_recent_answer() {
        let resolver = Resolver::new("name.invalid", 80);
        let known: Arc<[SocketAddr]> = Arc::from([SocketAddr::from(([127, 0, 0, 1], 80))]);
        let now = timer::now();
        *resolver.last() = Some(Answer {
            addresses: known.clone(),
            fresh_until: now,
            usable_until: timer::after(USABLE_FOR),
        });

        let answer = resolver.resolve(timer::after(Duration::from_secs(5))).await;

        assert_eq!(answer.unwrap(), known);
    }
}
