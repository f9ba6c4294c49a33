//! From what was seen of an API to a model of it: which limit explains the refusals, how long
//! answers take, when it was down.
//!
//! Every candidate (a window of a usual length, at a phase that a refusal named; a sliding window;
//! so many at once) is held against all that was let through and all that was refused. The one
//! that explains most wins, and says how much it explains.

use std::time::Duration;

use super::model::{Hints, Limiter, Model, Outage};
use super::workload::words;
use crate::policy::time::{MonoTime, WallTime};

/// Windows that APIs have, in seconds.
const WINDOWS: [f64; 15] = [
    1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0,
    86_400.0,
];

/// Phases that are tried for each window: the first moments that refusals named.
const PHASES_MAX: usize = 16;

/// So many failures in a row, without a good answer between, are an outage.
const OUTAGE_FAILURES: usize = 3;

/// Two moments are the same if they are so near: the way of an answer, and of a busy machine.
const NEAR: f64 = 0.05;

/// Beginnings are recorded in whole milliseconds, cut off; what was sent as soon as it was allowed
/// must not seem to come before.
const EARLY: f64 = 0.002;

/// A simpler explanation is preferred unless another explains so much more.
const MARGIN: f64 = 0.05;

/// One attempt as the ledger has it; times in seconds from its beginning.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// When it was sent.
    pub at: f64,
    /// To its head or failure.
    pub took: f64,
    /// What came of it.
    pub word: Word,
    /// Attempts for which it stands.
    pub weight: u32,
}

/// What came of an attempt.
#[derive(Clone, Debug, PartialEq)]
pub enum Word {
    /// An answer that is no refusal and no failure.
    Good,
    /// A refusal by a rate limit.
    Refused {
        /// "Not before", in seconds from the answer.
        hint: Option<f64>,
        /// Where it stood.
        source: Option<String>,
    },
    /// The API failed.
    Failed {
        /// If there was an answer.
        status: Option<u16>,
        /// If there was none.
        error: Option<String>,
    },
    /// The client left.
    Unknown,
}

/// A model, and how it was made.
#[derive(Clone, Debug)]
pub struct Inferred {
    /// The model.
    pub model: Model,
    /// Sentences for people.
    pub said: Vec<String>,
}

/// One refusal; times in seconds.
#[derive(Clone, Copy, Debug)]
struct Refusal {
    at: f64,
    took: f64,
    /// "Not before", as a moment.
    named: Option<f64>,
    /// The same as a span.
    told: Option<f64>,
    /// Whether it was told in milliseconds.
    exact: bool,
}

impl Refusal {
    /// 1 if what it named is this moment, or if it named none.
    fn agrees(&self, end: f64) -> f64 {
        // Rounded up to seconds, a moment is named up to a second late.
        let late = if self.exact { NEAR } else { 1.0 + NEAR };
        let off = self.named.map(|named| named - end);
        if off.is_none_or(|off| -NEAR <= off && off <= late) { 1.0 } else { 0.5 }
    }
}

/// What an API said of its quota last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Described {
    /// Units per window.
    pub limit: u32,
    /// Until it was renewed, then; the window is at least as long.
    pub reset: Duration,
}

/// A limit and how well it explains what was seen, from 0 to 1.
#[derive(Clone, Debug)]
struct Guess {
    limiter: Limiter,
    score: f64,
}

/// The model that explains what was seen best. `described` is the limit in the quota that the API
/// described last.
pub fn model(seen: &[Seen], start: WallTime, described: Option<Described>) -> Inferred {
    let refused: Vec<Refusal> = seen
        .iter()
        .filter_map(|it| match &it.word {
            Word::Refused { hint, source } => Some(Refusal {
                at: it.at,
                took: it.took,
                named: hint.map(|hint| it.at + it.took + hint),
                told: *hint,
                exact: source.as_deref() == Some("retry-after-ms"),
            }),
            Word::Good | Word::Failed { .. } | Word::Unknown => None,
        })
        .collect();
    let good: Vec<(f64, f64)> = seen
        .iter()
        .filter(|it| it.word == Word::Good)
        .flat_map(|it| (0..it.weight.min(10_000)).map(|_| (it.at, it.took)))
        .collect();
    let (limiter, how) = limit(&good, &refused, start, described);
    let mut said = vec![how];
    let median = |mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times.get(times.len() / 2).copied().unwrap_or(0.0)
    };
    let latency =
        Duration::from_secs_f64(median(good.iter().map(|(_, took)| *took).collect()).max(0.0));
    let hints = if described.is_some() { Hints::Quota } else { hints(seen) };
    let mut model = Model::with_limits(vec![limiter], hints, (latency, latency));
    let refusal = median(refused.iter().map(|it| it.took).collect());
    model.refusal_latency =
        (!refused.is_empty()).then(|| Duration::from_secs_f64(refusal.max(0.0)));
    let stray;
    (model.outages, stray) = outages(seen);
    for (from, to, what) in &model.outages {
        let seconds = |at: &MonoTime| at.since(MonoTime::ZERO).as_secs_f64();
        said.push(format!("down from {:.1} s to {:.1} s ({what:?})", seconds(from), seconds(to)));
    }
    if stray > 0 {
        said.push(format!("single failures that are not replayed: {stray}"));
    }
    said.push("each answer takes as long as it took".to_owned());
    Inferred { model, said }
}

/// The limit that explains what was seen best, and how it was found.
fn limit(
    good: &[(f64, f64)],
    refused: &[Refusal],
    start: WallTime,
    described: Option<Described>,
) -> (Limiter, String) {
    match (refused.is_empty(), described) {
        (true, None) => {
            let how = "the API refused nothing and described no quota, so the model has no limit";
            (Limiter::Open, how.to_owned())
        }
        (true, Some(described)) => {
            let limiter = described_window(good, described);
            let how = "from the quota that the API described; the window is the shortest usual one that \
                       reaches to its reset";
            let how = format!("{}, {how}", words(&limiter));
            (limiter, how)
        }
        (false, _) => {
            let mut guess = best(good, refused, start);
            if let Limiter::Fixed { max, .. }
            | Limiter::Shifted { max, .. }
            | Limiter::Sliding { max, .. } = &mut guess.limiter
                && let Some(Described { limit, .. }) = described
                && limit.abs_diff(*max) <= *max / 10
            {
                *max = limit;
            }
            let how = format!(
                "{}, inferred from {} recorded refusals, which it explains to {:.0} %",
                words(&guess.limiter),
                refused.len(),
                guess.score.clamp(0.0, 1.0) * 100.0
            );
            (guess.limiter, how)
        }
    }
}

/// How the API says when to come back, as most of its refusals do.
fn hints(seen: &[Seen]) -> Hints {
    let (mut none, mut millis, mut seconds, mut quota) = (0, 0, 0, 0);
    for it in seen {
        if let Word::Refused { source, .. } = &it.word {
            match source.as_deref() {
                None => none += 1,
                Some("retry-after-ms") => millis += 1,
                Some("ratelimit-reset") => quota += 1,
                Some(_) => seconds += 1,
            }
        }
    }
    let most = none.max(millis).max(seconds).max(quota);
    match () {
        () if most == seconds => Hints::Seconds,
        () if most == millis => Hints::Millis,
        () if most == quota => Hints::Quota,
        () => Hints::None,
    }
}

fn best(good: &[(f64, f64)], refused: &[Refusal], start: WallTime) -> Guess {
    let mut best = at_once(good, refused);
    best.score -= MARGIN;
    for window in WINDOWS {
        let sliding = sliding(good, refused, window);
        if sliding.score > best.score + MARGIN {
            best = sliding;
        }
    }
    let mut fixed_best: Option<Guess> = None;
    for window in WINDOWS {
        let of_clock = -((start.unix_ms as f64 / 1000.0).rem_euclid(window));
        let named = refused.iter().filter_map(|it| it.named.map(|named| named - EARLY));
        for phase in [of_clock].into_iter().chain(named.take(PHASES_MAX)) {
            let guess = fixed(good, refused, window, phase.rem_euclid(window));
            if fixed_best.as_ref().is_none_or(|it| guess.score > it.score + MARGIN / 10.0) {
                fixed_best = Some(guess);
            }
        }
    }
    match fixed_best {
        Some(fixed) if fixed.score + MARGIN >= best.score => fixed,
        Some(_) | None => best,
    }
}

/// Windows of the clock, the first of which ends at `phase`.
fn fixed(good: &[(f64, f64)], refused: &[Refusal], window: f64, phase: f64) -> Guess {
    // What is sent arrives a moment later, and was judged then.
    let number = |at: f64| ((at - phase) / window).floor();
    let within = |number: f64| {
        let (from, to) = (phase + number * window, phase + (number + 1.0) * window);
        below(good, to) - below(good, from)
    };
    let mut full: Vec<usize> = refused.iter().map(|it| within(number(it.at))).collect();
    full.sort_unstable();
    // What is sent as a window ends may be counted in the next one, so some seem to hold less; at a
    // wrong phase they differ more.
    let max = full.get(full.len() * 9 / 10).copied().unwrap_or(0).max(1);
    let differ = full.iter().map(|count| max.abs_diff(*count)).sum::<usize>() as f64;
    let differ = differ / (max * full.len().max(1)) as f64;
    let mut explained = 0.0;
    for refusal in refused {
        let number = number(refusal.at);
        let is_full = within(number) * 10 >= max * 9;
        let end = phase + (number + 1.0) * window;
        let agrees = refusal.agrees(end);
        explained += if is_full { agrees } else { 0.0 };
    }
    let excess: usize = {
        let mut numbers: Vec<f64> = good.iter().map(|(at, _)| number(*at)).collect();
        numbers.dedup();
        numbers.into_iter().map(|number| within(number).saturating_sub(max)).sum()
    };
    Guess {
        limiter: Limiter::Shifted {
            max: u32::try_from(max).unwrap_or(u32::MAX),
            window: Duration::from_secs_f64(window),
            phase: Duration::from_secs_f64(phase),
        },
        score: explained / refused.len() as f64 - differ - excess as f64 / good.len().max(1) as f64,
    }
}

fn sliding(good: &[(f64, f64)], refused: &[Refusal], window: f64) -> Guess {
    let within = |at: f64| below(good, at) - below(good, at - window);
    let mut full: Vec<usize> = refused.iter().map(|it| within(it.at)).collect();
    full.sort_unstable();
    let max = full.get(full.len() / 2).copied().unwrap_or(0).max(1);
    let explained = refused.iter().filter(|it| within(it.at) * 10 >= max * 9).map(|it| {
        // There is room when the oldest leaves the window.
        let oldest = good.get(below(good, it.at - window)).map_or(it.at, |(at, _)| *at);
        it.agrees(oldest + window)
    });
    let explained: f64 = explained.sum();
    let excess = good.iter().filter(|(at, _)| within(*at) > max + max / 20).count();
    Guess {
        limiter: Limiter::Sliding {
            max: u32::try_from(max).unwrap_or(u32::MAX),
            window: Duration::from_secs_f64(window),
        },
        score: explained / (refused.len() as f64) - excess as f64 / good.len().max(1) as f64,
    }
}

fn at_once(good: &[(f64, f64)], refused: &[Refusal]) -> Guess {
    let mut ends: Vec<(f64, f64)> = good.iter().map(|(at, took)| (at + took, 0.0)).collect();
    ends.sort_by(|a, b| a.0.total_cmp(&b.0));
    let in_flight = |at: f64| below(good, at).saturating_sub(below(&ends, at));
    let mut full: Vec<usize> = refused.iter().map(|it| in_flight(it.at)).collect();
    full.sort_unstable();
    let max = full.get(full.len() / 2).copied().unwrap_or(0).max(1);
    let explained = full.iter().filter(|count| **count >= max).count();
    let excess = good.iter().filter(|(at, _)| in_flight(*at) > max).count();
    // A limit on what is in flight cannot know when there is room: a time that is told speaks
    // against it.
    let told = refused.iter().filter(|it| it.told.is_some_and(|told| told > 1.0)).count();
    let refusals = refused.len() as f64;
    Guess {
        limiter: Limiter::Concurrency { max: u32::try_from(max).unwrap_or(u32::MAX) },
        score: (explained as f64 - told as f64 / 2.0) / refusals
            - excess as f64 / good.len().max(1) as f64,
    }
}

/// How many were sent before `at`; they are in order.
fn below(sent: &[(f64, f64)], at: f64) -> usize {
    sent.partition_point(|(sent, _)| *sent < at)
}

/// The shortest usual window that is as long as the reset was away and in which never more was let
/// through than the API says there is.
fn described_window(good: &[(f64, f64)], described: Described) -> Limiter {
    let Described { limit, reset } = described;
    let long = WINDOWS.into_iter().find(|window| *window >= reset.as_secs_f64() - 1.0);
    let window = Duration::from_secs_f64(long.unwrap_or(86_400.0));
    // What was sent may have filled two windows of the clock side by side, but not three.
    let most =
        good.iter().map(|(at, _)| below(good, *at + window.as_secs_f64()) - below(good, *at)).max();
    let max = most.map_or(limit, |most| limit.max(u32::try_from(most / 2).unwrap_or(limit)));
    Limiter::Fixed { max, window }
}

type Outages = Vec<(MonoTime, MonoTime, Outage)>;

/// When the API was down, and how many failures are none of that.
fn outages(seen: &[Seen]) -> (Outages, usize) {
    let (mut found, mut stray) = (Vec::new(), 0);
    let mut row: Vec<&Seen> = Vec::new();
    let mut finish = |row: &mut Vec<&Seen>| {
        if let (Some(first), Some(last)) = (row.first(), row.last())
            && row.len() >= OUTAGE_FAILURES
        {
            let at =
                |seconds: f64| MonoTime::from_nanos(1) + Duration::from_secs_f64(seconds.max(0.0));
            found.push((at(first.at), at(last.at + 0.001), kind(&first.word)));
        } else {
            stray += row.len();
        }
        row.clear();
    };
    for it in seen {
        match it.word {
            Word::Failed { .. } => row.push(it),
            Word::Good => finish(&mut row),
            Word::Refused { .. } | Word::Unknown => {}
        }
    }
    finish(&mut row);
    (found, stray)
}

fn kind(word: &Word) -> Outage {
    let Word::Failed { status, error } = word else { return Outage::Error };
    match (status, error.as_deref()) {
        (Some(503), _) => Outage::Unavailable,
        (Some(_), _) | (None, None) => Outage::Error,
        (None, Some(error)) if error.starts_with("timeout") => Outage::Silent,
        (None, Some("reset" | "stale")) => Outage::Reset,
        (None, Some(_)) => Outage::Refused,
    }
}
