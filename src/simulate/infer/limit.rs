//! Which limit explains what was seen: every candidate is held against all of it.
//!
//! A candidate is a window of a usual length, at some phase or sliding, or so many at once. It is
//! counted as the API would have counted: at a refusal as many must have gone as there are, at an
//! answer fewer, and where answers say what is left, as many as they say. What a refusal names must
//! be when there is room again. The one that explains most wins.

use std::collections::BTreeMap;
use std::time::Duration;

use super::evidence::{EARLY, Evidence, Gone, WAY_MAX, Witness, below, every};
use crate::policy::time::WallTime;
use crate::simulate::model::Limiter;

/// Windows that APIs have, in seconds.
const WINDOWS: [f64; 15] = [
    1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0,
    86_400.0,
];

/// Phases that are tried for each window, evenly spread …
const PHASES: u32 = 100;
/// … and those that the first refusals named, which are exact.
const PHASES_NAMED_MAX: usize = 16;

/// Windows that are looked at for more than there is.
const WINDOWS_MAX: usize = 2_000;

/// A simpler explanation is preferred unless another explains so much more.
const MARGIN: f64 = 0.05;

/// The replay sends when it was sent, not when it arrived: what explains that as well is worth more
/// by this share.
const LIKELY: f64 = 0.3;

/// Explanations that differ by less are the same.
const SAME: f64 = 0.005;

/// A limit and how well it explains what was seen, from 0 to 1.
#[derive(Clone, Debug)]
pub(super) struct Guess {
    pub(super) limiter: Limiter,
    pub(super) score: f64,
}

impl Evidence {
    /// The limit that explains it best; `None` where nothing speaks for one.
    pub(super) fn best(&self, start: WallTime) -> Option<Guess> {
        let (refusals, told) = self.witnesses();
        if refusals + told == 0 {
            return None;
        }
        // A reset that is told in whole seconds may be told up to one too late.
        let long = |window: &&f64| **window > self.reset - 1.0;
        let usual: Vec<f64> = WINDOWS.iter().filter(long).copied().collect();
        let sliding = middle(usual.iter().map(|window| self.sliding(*window)).collect());
        let fixed = middle(usual.iter().map(|window| self.fixed(*window, start)).collect());
        let best = match (fixed, sliding) {
            (Some(fixed), Some(sliding)) if sliding.score > fixed.score + SAME => Some(sliding),
            (fixed, sliding) => fixed.or(sliding),
        };
        let at_once = (refusals > 0 && told == 0).then(|| self.at_once());
        match (at_once, best) {
            (Some(at_once), Some(best)) if at_once.score > best.score + MARGIN => Some(at_once),
            (at_once, best) => best.or(at_once),
        }
    }

    /// Sizes that a limit may have, given how many had gone at each refusal, and at most without.
    fn sizes(&self, at_refusals: &[Gone], most: usize) -> Vec<usize> {
        if let Some(limit) = self.limit {
            return vec![limit.max(1)];
        }
        let mut sizes = Vec::new();
        for of in [|gone: &Gone| gone.likely[1], |gone: &Gone| gone.at_most] {
            let mut times: BTreeMap<usize, usize> = BTreeMap::new();
            for gone in at_refusals {
                *times.entry(of(gone)).or_default() += 1;
            }
            sizes.extend(times.into_iter().max_by_key(|(size, times)| (*times, *size)));
        }
        let mut sizes: Vec<usize> = sizes.into_iter().map(|(size, _)| size).collect();
        sizes.push(most);
        sizes.dedup();
        sizes.into_iter().map(|size| size.max(1)).collect()
    }

    /// What speaks for a limit, less what speaks against it. For each witness: how many had gone when
    /// it came, and how well what it told fits. `excess` is the share of what went beyond it.
    fn score(&self, max: usize, refused: &[(Gone, f64)], told: &[(Gone, f64)], excess: f64) -> f64 {
        let explained = refused.iter().filter(|(gone, _)| is_full(gone.at_most, max));
        let explained: f64 = explained
            .map(|(gone, fits)| {
                let sent = if is_full(gone.likely[1], max) { 1.0 } else { 1.0 - LIKELY };
                sent * (1.0 + fits) / 2.0
            })
            .sum();
        let explained = if refused.is_empty() { 1.0 } else { explained / refused.len() as f64 };
        let said = told.iter().zip(every(&self.told)).map(|((gone, fits), it)| {
            let used = max as f64 - it.left.unwrap_or(0.0);
            let off =
                |from: usize, to: usize| (from as f64 + 1.0 - used).max(used - to as f64).max(0.0);
            let [from, to] = gone.likely;
            ((off(gone.surely, gone.at_most) + LIKELY * off(from, to)) / max as f64).min(1.0)
                + (1.0 - fits) / 2.0
        });
        let wrong = said.sum::<f64>() / told.len().max(1) as f64;
        explained - excess - wrong
    }

    fn sliding(&self, window: f64) -> Guess {
        let look = |it: &Witness| {
            let mut gone = self.gone(it.from - window, it);
            gone.surely =
                below(&self.arrived, it.from).saturating_sub(below(&self.sent, it.to - window));
            // There is room when the oldest leaves the window.
            let oldest = self.sent.get(below(&self.sent, it.from - window));
            let freed = oldest.map_or(it.from, |at| *at) + window;
            let freed = it.fits(freed, self.way);
            (
                gone,
                if it.left.is_some() { freed.max(it.fits(it.from + window, 0.0)) } else { freed },
            )
        };
        let refused: Vec<_> = every(&self.refused).map(look).collect();
        let told: Vec<_> = every(&self.told).map(look).collect();
        // What had gone when another was let through, surely and likely.
        let before = every(&self.sent).map(|at| {
            let surely = below(&self.sent, at + WAY_MAX - window);
            let surely = below(&self.arrived, *at).saturating_sub(surely);
            (surely, below(&self.sent, *at) - below(&self.sent, at - window))
        });
        let before: Vec<(usize, usize)> = before.collect();
        let most = before.iter().map(|it| it.0 + 1).max().unwrap_or(1);
        let counts: Vec<Gone> = refused.iter().map(|it| it.0).collect();
        best_of(self.sizes(&counts, most).into_iter().map(|max| Guess {
            limiter: Limiter::Sliding {
                max: u32::try_from(max).unwrap_or(u32::MAX),
                window: Duration::from_secs_f64(window),
            },
            score: {
                let over = |(surely, likely): &(usize, usize)| {
                    f64::from(u8::from(*surely >= max))
                        + LIKELY * f64::from(u8::from(*likely >= max))
                };
                let excess = before.iter().map(over).sum::<f64>() / before.len().max(1) as f64;
                self.score(max, &refused, &told, excess)
            },
        }))
    }

    /// Windows of the clock, at the phase that explains most.
    fn fixed(&self, window: f64, start: WallTime) -> Guess {
        let of_clock = (-(start.unix_ms as f64 / 1000.0)).rem_euclid(window);
        let of_clock = self.fixed_at(window, of_clock);
        let exact = self.refused.iter().filter(|it| it.is_exact);
        let named = exact.filter_map(|it| it.told.map(|told| it.end + told - EARLY));
        let named = named.take(PHASES_NAMED_MAX);
        let named = named.map(|at| self.fixed_at(window, at.rem_euclid(window)));
        let named = named.max_by(|a, b| a.score.total_cmp(&b.score));
        let spread: Vec<Guess> = (0..PHASES)
            .map(|n| self.fixed_at(window, window * f64::from(n) / f64::from(PHASES)))
            .collect();
        let best = match (named, centre(&spread)) {
            (Some(named), Some(spread)) if spread.score <= named.score + SAME => named,
            (named, spread) => spread.or(named).unwrap_or_else(|| of_clock.clone()),
        };
        if of_clock.score + SAME >= best.score { of_clock } else { best }
    }

    /// Windows of the clock, the first of which ends at `phase`.
    fn fixed_at(&self, window: f64, phase: f64) -> Guess {
        let number = |at: f64| ((at - phase) / window).floor();
        let begin = |number: f64| phase + number * window;
        // As a window ends, it may have come in either; what fits better is believed.
        let look = |it: &Witness| {
            let of =
                |number| (self.gone(begin(number), it), it.fits(begin(number + 1.0), self.way));
            let (early, late) = (of(number(it.from)), of(number(it.to)));
            if late.1 > early.1 { late } else { early }
        };
        let refused: Vec<_> = every(&self.refused).map(look).collect();
        let told: Vec<_> = every(&self.told).map(look).collect();
        // What went in each window, surely and likely; those in which nothing went are left out.
        let mut next = 0;
        let all = std::iter::from_fn(|| {
            let number = number(*self.sent.get(next)?);
            let (old, until) = (below(&self.sent, begin(number)), begin(number + 1.0));
            // Where rounding says otherwise, it is the next window's.
            next = below(&self.sent, until).max(next + 1);
            Some((below(&self.arrived, until).saturating_sub(old), next - old))
        });
        let all: Vec<(usize, usize)> = all.take(WINDOWS_MAX).collect();
        let most = all.iter().map(|(surely, _)| *surely).max().unwrap_or(1);
        let counts: Vec<Gone> = refused.iter().map(|it| it.0).collect();
        best_of(self.sizes(&counts, most).into_iter().map(|max| Guess {
            limiter: Limiter::Shifted {
                max: u32::try_from(max).unwrap_or(u32::MAX),
                window: Duration::from_secs_f64(window),
                phase: Duration::from_secs_f64(phase),
            },
            score: {
                let over = |(surely, likely): &(usize, usize)| {
                    surely.saturating_sub(max) as f64 + LIKELY * likely.saturating_sub(max) as f64
                };
                let went: usize = all.iter().map(|it| it.1).sum();
                let excess = all.iter().map(over).sum::<f64>() / went.max(1) as f64;
                self.score(max, &refused, &told, excess)
            },
        }))
    }

    fn at_once(&self) -> Guess {
        let in_flight = |at: f64| below(&self.sent, at).saturating_sub(below(&self.ends, at));
        let mut full: Vec<usize> = self.refused.iter().map(|it| in_flight(it.from)).collect();
        full.sort_unstable();
        let max = full.get(full.len() / 2).copied().unwrap_or(0).max(1);
        let explained = full.iter().filter(|count| **count >= max).count();
        let excess = self.sent.iter().filter(|at| in_flight(**at) > max).count();
        // A limit on what is in flight cannot know when there is room: a time that is told speaks
        // against it.
        let told = self.refused.iter().filter(|it| it.told.is_some()).count();
        Guess {
            limiter: Limiter::Concurrency { max: u32::try_from(max).unwrap_or(u32::MAX) },
            score: (explained as f64 - told as f64 / 2.0) / self.refused.len().max(1) as f64
                - excess as f64 / self.sent.len().max(1) as f64,
        }
    }
}

/// Whether as many had gone as there are, but for those that were counted a moment later.
fn is_full(count: usize, max: usize) -> bool {
    count + 1 >= max || count * 20 >= max * 19
}

/// The one that explains most; the first of equals.
fn best_of(guesses: impl Iterator<Item = Guess>) -> Guess {
    let open = Guess { limiter: Limiter::Open, score: f64::NEG_INFINITY };
    guesses.fold(open, |best, guess| if guess.score > best.score { guess } else { best })
}

/// Of windows of rising length that explain the same, the middle one: too long a window holds back
/// as much as too short a one lets through.
fn middle(guesses: Vec<Guess>) -> Option<Guess> {
    let most = guesses.iter().map(|it| it.score).max_by(f64::total_cmp)?;
    let mut same: Vec<Guess> = guesses.into_iter().filter(|it| it.score + SAME >= most).collect();
    let at = (same.len() - 1) / 2;
    (!same.is_empty()).then(|| same.swap_remove(at))
}

/// The middle of the longest row of phases that explain most.
fn centre(guesses: &[Guess]) -> Option<Guess> {
    let most = guesses.iter().map(|it| it.score).max_by(f64::total_cmp)?;
    let is_best =
        |at: usize| guesses.get(at % guesses.len()).is_some_and(|it| it.score + SAME >= most);
    // Phases go round: a row may begin before the first one.
    let rows = (0..guesses.len())
        .filter(|at| is_best(*at))
        .map(|at| (at, (at..at + guesses.len()).take_while(|at| is_best(*at)).count()));
    let (from, length) = rows.max_by_key(|(at, length)| (*length, std::cmp::Reverse(*at)))?;
    guesses.get((from + length / 2) % guesses.len()).cloned()
}
