//! Another protocol on the same connection: one attempt, then bytes both ways.
//!
//! Nothing behind the request goes up before the upstream's 101 is in hand; the gate towards the
//! client withholds it until then. From there on no rule of HTTP applies, so there is no retry
//! and no idle limit; the place in flight is held until either side ends.

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::exchange::Teller;
use super::gate::InFlight;

/// Both halves of what has to be joined once both sides have agreed.
pub(super) struct Tunnel {
    pub(super) downstream: OnUpgrade,
    pub(super) upstream: OnUpgrade,
}

impl Tunnel {
    /// Joins both sides in a task of its own and tells the story at the end.
    pub(super) fn open(self, in_flight: Option<InFlight>, mut teller: Box<Teller>) {
        tokio::spawn(async move {
            let joined = tokio::try_join!(self.downstream, self.upstream);
            if let Ok((downstream, upstream)) = joined {
                let (mut down, mut up) = (TokioIo::new(downstream), TokioIo::new(upstream));
                // An error here is a side that went away, which is how these connections end.
                if let Ok((from_client, from_upstream)) =
                    tokio::io::copy_bidirectional(&mut down, &mut up).await
                {
                    teller.story.bytes_up = from_client;
                    teller.story.bytes_down = from_upstream;
                }
            }
            drop(in_flight);
            teller.tell();
        });
    }
}
