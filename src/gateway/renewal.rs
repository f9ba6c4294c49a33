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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::gateway::clock::Clock;
    use crate::telemetry::metrics::Metrics;

    fn common() -> Arc<Common> {
        let text = "[upstreams.a]\nurl = \"http://127.0.0.1:9\"\n";
        let loaded = crate::config::load_str(text, "test.toml", &|_| None).unwrap();
        Common::new(Clock::start(), Arc::new(Metrics::new()), &loaded.settings)
    }

    fn injected(value: &'static str) -> Arc<Injected> {
        Arc::new((http::header::AUTHORIZATION, HeaderValue::from_static(value)))
    }

    /// How many of these find another secret, and how often was looked for it.
    async fn asked_at_once(renewed: Option<&'static str>) -> (usize, u32) {
        let (common, renewal) = (common(), Arc::new(Renewal::default()));
        let looks = Arc::new(AtomicU32::new(0));
        renewal.put(Some(injected("old")));
        let (counting, putting) = (looks.clone(), renewal.clone());
        common.look_by(Box::new(move |upstream| {
            assert_eq!(upstream, "a");
            counting.fetch_add(1, Ordering::SeqCst);
            if let Some(new) = renewed {
                putting.put(Some(injected(new)));
            }
        }));
        let mut asking = tokio::task::JoinSet::new();
        for _ in 0..50 {
            let (common, renewal) = (common.clone(), renewal.clone());
            asking.spawn(async move {
                renewal.has_other(&injected("old"), &common, &Arc::from("a")).await
            });
        }
        let found = asking.join_all().await.into_iter().filter(|found| *found).count();
        (found, looks.load(Ordering::SeqCst))
    }

    #[tokio::test]
    async fn those_that_are_refused_at_once_share_one_look() {
        assert_eq!(asked_at_once(Some("new")).await, (50, 1));
        assert_eq!(asked_at_once(Some("old")).await, (0, 1));
        assert_eq!(asked_at_once(None).await, (0, 1));
    }

    #[tokio::test]
    async fn what_was_refused_before_the_last_renewal_needs_no_look() {
        let (common, renewal) = (common(), Renewal::default());
        common.look_by(Box::new(|_| panic!("there is nothing to look for")));
        renewal.put(Some(injected("new")));
        assert!(renewal.has_other(&injected("old"), &common, &Arc::from("a")).await);
        let newest = renewal.newest(&Some(injected("old"))).unwrap();
        assert_eq!(newest.1, "new");
        let other = Arc::new((http::header::COOKIE, HeaderValue::from_static("mine")));
        assert_eq!(renewal.newest(&Some(other.clone())), Some(other), "of another field");
        assert_eq!(renewal.newest(&None), None);
    }
}
