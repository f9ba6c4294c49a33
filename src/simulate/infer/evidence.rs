//! What was seen of an API, in the form in which a limit is held against it.
//!
//! When an attempt was sent is known, and not when it arrived; the API counted in that order. So of
//! each it is known how many surely had gone before it, and how many at most.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Seen, Word, moment};
use crate::simulate::model::{Hints, Limiter, Model, Told};

/// Refusals, and answers that told of a quota, that candidates are held against, each: enough to tell
/// limits apart, in a moment.
const WITNESSES_MAX: usize = 500;

/// Attempts for which one row stands at most; more a second no limit lets through.
const COPIES_MAX: u32 = 10_000;

/// A request is on its way for so long at most, on a busy machine; not the API's time to work.
pub(super) const WAY_MAX: f64 = 0.5;

/// Two moments are the same if they are so near.
const NEAR: f64 = 0.05;

/// Beginnings are recorded in whole milliseconds, cut off; what was sent as soon as it was allowed
/// must not seem to come before.
pub(super) const EARLY: f64 = 0.002;

/// What an answer or a refusal says of the limit; times in seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Witness {
    /// It arrived between these.
    pub(super) from: f64,
    pub(super) to: f64,
    /// When its answer was there.
    pub(super) end: f64,
    /// Units that were left, as it said.
    pub(super) left: Option<f64>,
    /// In how long there is room, or a renewal, as it said.
    pub(super) told: Option<f64>,
    /// Whether that was told more exactly than in seconds.
    pub(super) is_exact: bool,
}

impl Witness {
    /// `works` is how long the API takes at least.
    fn of(it: &Seen, works: f64) -> Self {
        let way = if it.word == Word::Good { it.took - works + NEAR / 5.0 } else { it.took };
        let (from, to) = (it.at, it.at + way.clamp(EARLY, WAY_MAX));
        Self { from, to, end: it.at + it.took, left: None, told: None, is_exact: false }
    }

    /// From 0 to 1, how well a moment fits what it told: 1 also if it told none. Ways that differ by
    /// `way` make moments seem too early.
    pub(super) fn fits(&self, at: f64, way: f64) -> f64 {
        let Some(told) = self.told else { return 1.0 };
        // Rounded up to seconds, a moment is named up to a second late.
        let late = if self.is_exact { NEAR } else { 1.0 + NEAR };
        let off = self.from + told - late - at;
        match () {
            () if at > self.end + told + NEAR => 0.0,
            () if off <= 0.0 => 1.0,
            () if off <= way => 0.9,
            () => 0.0,
        }
    }
}

/// What there is to explain.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    /// When attempts were sent that were let through, in order …
    pub(super) sent: Vec<f64>,
    /// … and when they surely had arrived, in order of that …
    pub(super) arrived: Vec<f64>,
    /// … and when they were answered, in order of that.
    pub(super) ends: Vec<f64>,
    /// By how much the ways of requests differ.
    pub(super) way: f64,
    pub(super) refused: Vec<Witness>,
    /// Of those that were let through, those whose answers told what was left.
    pub(super) told: Vec<Witness>,
    /// The limit that answers told most often.
    pub(super) limit: Option<usize>,
    /// The farthest reset that they told.
    pub(super) reset: f64,
}

/// How many had gone when an attempt came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gone {
    /// At least, without itself.
    pub(super) surely: usize,
    /// As they were sent, but for the order within a moment: at least and at most.
    pub(super) likely: [usize; 2],
    /// At most, with itself if it was let through.
    pub(super) at_most: usize,
}

impl Evidence {
    pub(super) fn of<'a>(seen: impl Iterator<Item = &'a Seen>) -> Self {
        let seen: Vec<&Seen> = seen.collect();
        let good = seen.iter().filter(|it| it.word == Word::Good);
        let mut took: Vec<f64> = good.map(|it| it.took).collect();
        took.sort_by(f64::total_cmp);
        let share = |twentieths: usize| took.get(took.len() * twentieths / 20).copied();
        let (works, usual) = (share(1).unwrap_or(0.0), share(19).unwrap_or(0.0));
        let mut evidence = Self { way: (usual - works).min(WAY_MAX), ..Self::default() };
        let mut limits: BTreeMap<usize, usize> = BTreeMap::new();
        for it in seen {
            let witness = Witness::of(it, works);
            match &it.word {
                Word::Good => {
                    for copy in 0..it.weight.min(COPIES_MAX) {
                        let earlier = f64::from(copy) / f64::from(it.weight);
                        evidence.sent.push(it.at - earlier);
                        evidence.arrived.push(witness.to - earlier);
                        evidence.ends.push(witness.end - earlier);
                    }
                    evidence.told.extend(it.quota.map(|quota| Witness {
                        left: Some(quota.remaining),
                        told: quota.reset,
                        ..witness
                    }));
                }
                Word::Refused { hint, source } => evidence.refused.push(Witness {
                    told: *hint,
                    is_exact: source.as_deref() == Some("retry-after-ms"),
                    ..witness
                }),
                Word::Failed { .. } | Word::Unknown => continue,
            }
            if let Some(quota) = &it.quota {
                evidence.reset = evidence.reset.max(quota.reset.unwrap_or(0.0));
                if let Some(limit) = quota.limit {
                    *limits.entry(limit).or_default() += 1;
                }
            }
        }
        for moments in [&mut evidence.sent, &mut evidence.arrived, &mut evidence.ends] {
            moments.sort_by(f64::total_cmp);
        }
        evidence.limit = limits.into_iter().max_by_key(|(_, times)| *times).map(|it| it.0);
        if evidence.limit.is_none() {
            evidence.told.clear();
        }
        evidence
    }

    /// Refusals, and answers that told of a quota: what speaks for a limit.
    pub(super) fn witnesses(&self) -> (usize, usize) {
        (self.refused.len(), self.told.len())
    }

    /// Whether all that was let through would be again, were this the limit.
    pub(super) fn fits(&self, limiter: &Limiter) -> bool {
        let at_once = (Duration::ZERO, Duration::ZERO);
        let mut api = Model::with_limits(std::slice::from_ref(limiter), Hints::None, at_once);
        // Nothing is drawn where nothing fails by chance.
        let mut rng = fastrand::Rng::with_seed(0);
        let mut ends = self.ends.iter().peekable();
        self.sent.iter().all(|at| {
            while ends.next_if(|end| *end <= at).is_some() {
                api.done();
            }
            let reply = api.receive(moment(*at), Told::default(), &mut rng);
            matches!(reply.result, Ok((200, _)))
        })
    }

    /// How many of those that were sent from `from` on had gone when this one came.
    pub(super) fn gone(&self, from: f64, it: &Witness) -> Gone {
        let (old, old_surely) = (below(&self.sent, from), below(&self.arrived, from));
        Gone {
            surely: below(&self.arrived, it.from).saturating_sub(old),
            likely: [it.from - NEAR, it.from + NEAR]
                .map(|at| below(&self.sent, at).saturating_sub(old)),
            at_most: below(&self.sent, it.to).saturating_sub(old_surely),
        }
    }
}

/// All of them, or as many as are looked at, evenly spread.
pub(super) fn every<T>(all: &[T]) -> impl Iterator<Item = &T> {
    all.iter().step_by(all.len().div_ceil(WITNESSES_MAX).max(1))
}

/// How many are before `at`; they are in order.
pub(super) fn below(moments: &[f64], at: f64) -> usize {
    moments.partition_point(|moment| *moment < at)
}
