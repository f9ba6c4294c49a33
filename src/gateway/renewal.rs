//! The secret that is put on an upstream's requests, and how a new one is found in time.
//!
//! Secrets are renewed while requests run, and the old one is refused from then on. Whoever is
//! refused has the secret's file looked at, at once: what is new there is put in force by a reload,
//! for everybody, and the refused exchange goes again with it. The looking is done beside the data
//! path, by one for all that are refused meanwhile, and never often.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::{HeaderName, HeaderValue};
use tokio::sync::Mutex;

use super::Common;
use crate::policy::time::MonoTime;

/// A file is looked at so often at most, however many requests are refused: some APIs answer 403
/// whenever something is not for everybody.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// An exchange waits so long for a look, which takes microseconds unless the disk hangs.
const LOOK_TIME_MAX: Duration = Duration::from_secs(1);

/// The field with the secret; its value is marked sensitive.
pub type Injected = (HeaderName, HeaderValue);

/// Looks whether the secret of an upstream, by its name, is a new one, and if so puts it in force.
/// May block.
pub type Look = Box<dyn Fn(&str) + Send + Sync>;

/// What outlives a reload: every attempt goes with the secret in force when it is sent.
#[derive(Debug, Default)]
pub struct Renewal {
    in_force: ArcSwapOption<Injected>,
    /// Held by the one that looks.
    last_look: Mutex<Option<MonoTime>>,
}

impl Renewal {
    /// For every attempt from now on.
    pub(super) fn put(&self, injected: Option<Arc<Injected>>) {
        self.in_force.store(injected);
    }

    /// What goes with an attempt whose configuration has `own`: the newest secret of that field.
    pub fn newest(&self, own: &Option<Arc<Injected>>) -> Option<Arc<Injected>> {
        let own = own.as_ref()?;
        let newest = self.in_force.load_full().filter(|newest| newest.0 == own.0);
        Some(newest.unwrap_or_else(|| own.clone()))
    }

    /// Whether there is another secret than the one that was `sent` and refused, after a look at
    /// its file if need be.
    pub(super) async fn has_other(
        &self,
        sent: &Injected,
        common: &Arc<Common>,
        upstream: &Arc<str>,
    ) -> bool {
        let look = async {
            let mut last_look = self.last_look.lock().await;
            let now = common.clock.now();
            let is_recent = last_look.is_some_and(|last| now.since(last) < LOOK_INTERVAL);
            if is_recent || self.is_other(sent) {
                return;
            }
            *last_look = Some(now);
            let (common, upstream) = (common.clone(), upstream.clone());
            // One that panicked has found nothing.
            let _ = tokio::task::spawn_blocking(move || common.look_at_secret(&upstream)).await;
        };
        if !self.is_other(sent) {
            // What takes longer is still put in force, for those that come later.
            let _ = tokio::time::timeout(LOOK_TIME_MAX, look).await;
        }
        self.is_other(sent)
    }

    fn is_other(&self, sent: &Injected) -> bool {
        self.in_force.load().as_ref().is_some_and(|now| now.0 == sent.0 && now.1 != sent.1)
    }
}
