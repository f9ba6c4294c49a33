//! From what was seen of an API to a model of it: which limits explain the refusals and what answers
//! said was left, how long answers take, when it was down.
//!
//! Limits are looked for twice, once for everybody together and once for each credential and named
//! bucket, since some APIs count by address and most by credential. What explains more is taken.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use self::evidence::Evidence;
use self::limit::Guess;
use super::model::{Hints, Model, Outage, owner};
use super::workload::words;
use crate::policy::time::{MonoTime, WallTime};

mod evidence;

mod limit;

/// Credentials and buckets whose limits are looked for; the others have that of the first of them,
/// unless they were served more.
const OWNERS_MAX: usize = 8;

/// Fewer refusals than this fit nearly any limit: what is concluded from them is called a guess.
const REFUSALS_MIN: usize = 3;

/// So many failures in a row, without a good answer between, are an outage.
const OUTAGE_FAILURES: usize = 3;

/// One attempt as the ledger has it; times in seconds from its beginning.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// When it was sent.
    pub at: f64,
    /// To its head or failure.
    pub took: f64,
    /// What came of it.
    pub word: Word,
    /// Attempts for which it stands, itself and those before it.
    pub weight: u32,
    /// Whose limit it used: a credential, and a bucket if one was named. Empty for everybody's.
    pub whose: Arc<str>,
    /// What the answer said of a quota.
    pub quota: Option<Quota>,
}

/// What an answer said of a quota.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quota {
    /// Units in a window.
    pub limit: Option<usize>,
    /// Of them, what was left.
    pub remaining: f64,
    /// Seconds until it was renewed.
    pub reset: Option<f64>,
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

/// The model that explains what was seen best.
pub fn model(seen: &[Seen], start: WallTime) -> Inferred {
    let is_refusal = |it: &&Seen| matches!(it.word, Word::Refused { .. });
    let mut times: Vec<f64> =
        seen.iter().filter(|it| it.word == Word::Good).map(|it| it.took).collect();
    times.sort_by(f64::total_cmp);
    let latency = span(times.get(times.len() / 2).copied().unwrap_or(0.0));
    let mut model = Model::with_limits(&[], hints(seen), (latency, latency));
    let refusals = seen.iter().filter(is_refusal);
    model.refusals_took = refusals.map(|it| (moment(it.at), span(it.took))).collect();
    let mut said = limits(&mut model, seen, start);
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

/// Gives the model its limits; says which, and how they were found.
fn limits(model: &mut Model, seen: &[Seen], start: WallTime) -> Vec<String> {
    let everybody = Evidence::of(seen.iter());
    let Some(together) = everybody.best(start) else {
        let how = "the API refused nothing and described no quota, so the model has no limit";
        return vec![how.to_owned()];
    };
    let mut owners: BTreeMap<&Arc<str>, Vec<&Seen>> = BTreeMap::new();
    for it in seen {
        owners.entry(&it.whose).or_default().push(it);
    }
    let several = owners.len() > 1;
    let mut busiest: Vec<_> = owners.into_iter().collect();
    busiest.sort_by_key(|(_, seen)| std::cmp::Reverse(seen.len()));
    let found = busiest.iter().take(OWNERS_MAX).filter_map(|(whose, seen)| {
        let evidence = Evidence::of(seen.iter().copied());
        Some((*whose, evidence.best(start)?, evidence.witnesses()))
    });
    let mut found: Vec<_> = found.collect();
    found.sort_by_key(|(_, _, (refusals, told))| std::cmp::Reverse(refusals + told));
    let weight = |(refusals, told): (usize, usize)| (refusals + told) as f64;
    let all: f64 = found.iter().map(|it| weight(it.2)).sum();
    let apart = found.iter().map(|(_, guess, seen)| guess.score * weight(*seen) / all).sum::<f64>();
    if !several || apart < together.score {
        let how = how(&together, everybody.witnesses());
        model.limit(vec![together.limiter], model.hints());
        let shared = if several { ", by all credentials together" } else { "" };
        return vec![format!("{how}{shared}")];
    }
    // Those that were never at their limit have, for all that is known, the same as the others; but
    // whoever was served more has another one, and where that is was not seen.
    let (mut said, mut more) = (Vec::new(), 0);
    if let Some((_, guess, _)) = found.first() {
        model.limit_each(vec![guess.limiter.clone()]);
        for (whose, seen) in &busiest {
            let evidence = Evidence::of(seen.iter().copied());
            if evidence.witnesses() == (0, 0) && !evidence.fits(&guess.limiter) {
                model.limit_one(owner(whose), &[]);
                more += 1;
            }
        }
    }
    for (whose, guess, witnesses) in found {
        said.push(format!("{whose}: {}", how(&guess, witnesses)));
        model.limit_one(owner(whose), &[guess.limiter]);
    }
    if more > 0 {
        said.push(format!(
            "without a limit, since never refused and served more than that: {more}"
        ));
    }
    said
}

/// A limit in words, and what speaks for it.
fn how(guess: &Guess, (refusals, told): (usize, usize)) -> String {
    let mut from = Vec::new();
    if refusals > 0 {
        let plural = if refusals == 1 { "" } else { "s" };
        from.push(format!("{refusals} recorded refusal{plural}"));
    }
    if refusals < REFUSALS_MIN && told == 0 {
        return format!("{}, a guess from {}", words(&guess.limiter), from.join(" and "));
    }
    if told > 0 {
        from.push(format!("{told} answers that told what was left"));
    }
    format!(
        "{}, inferred from {}, which it explains to {:.0} %",
        words(&guess.limiter),
        from.join(" and "),
        guess.score.clamp(0.0, 1.0) * 100.0
    )
}

/// How the API says when to come back, as most of its refusals do.
fn hints(seen: &[Seen]) -> Hints {
    let mut resets = seen.iter().filter_map(|it| it.quota.map(|quota| quota.reset)).peekable();
    if resets.peek().is_some() {
        let is_whole = |reset: Option<f64>| reset.is_none_or(|reset| reset.fract() == 0.0);
        return if resets.all(is_whole) { Hints::Quota } else { Hints::ExactQuota };
    }
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

type Outages = Vec<(MonoTime, MonoTime, Outage)>;

/// When the API was down, and how many failures are none of that.
fn outages(seen: &[Seen]) -> (Outages, usize) {
    let (mut found, mut stray) = (Vec::new(), 0);
    let mut row: Vec<&Seen> = Vec::new();
    let mut finish = |row: &mut Vec<&Seen>| {
        if let (Some(first), Some(last)) = (row.first(), row.last())
            && row.len() >= OUTAGE_FAILURES
        {
            found.push((moment(first.at), moment(last.at + 0.001), kind(&first.word)));
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

/// A moment of the past, as the replay has it.
fn moment(seconds: f64) -> MonoTime {
    MonoTime::from_nanos(1) + span(seconds)
}

fn span(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.max(0.0))
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
