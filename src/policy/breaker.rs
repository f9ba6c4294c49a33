//! Keeps an ill upstream from being asked, and finds out carefully when it is well again.
//!
//! It is evaluated when somebody asks; there is no timer and no task. Each [`Admission`] carries
//! the generation in which it was given, so evidence about a circuit that no longer exists
//! changes nothing: a slow failure from before the trip cannot re-open what a probe just closed.
//! A refusal by a rate limit is no failure; see [`Health`].
//!
//! While closed, a [`Health::HalfFailure`] counts as half a failure for the rate, and neither
//! adds to a streak of failures nor ends it. A half-open breaker takes it as a failure.

mod circuit;
mod evidence;
mod saved;

use std::time::Duration;

pub use self::circuit::{Circuit, CircuitName, Force, Held, Transition, TransitionReason};
use self::evidence::{Evidence, SlowStart};
pub use self::saved::SavedCircuit;
use super::backoff;
use super::outcome::{Health, Safety};
use super::settings::BreakerSettings;
use super::time::{Draw, MonoTime};

/// No probe is out for longer: its holder may have been lost.
const LEASE_MAX: Duration = Duration::from_secs(30);

/// Closed for so long, an upstream is well: the next trip begins with the first open time again.
const WELL_AFTER: Duration = Duration::from_secs(600);

/// How long the place of the probe is kept for a safe exchange, which can do no harm if it fails
/// half-way; then for one that may be repeated.
const fn probe_patience(safety: Safety) -> Duration {
    match safety {
        Safety::Safe => Duration::ZERO,
        Safety::Idempotent => Duration::from_secs(5),
        Safety::Unsafe => Duration::from_secs(10),
    }
}

/// One breaker. Its default is closed, with nothing learned.
#[derive(Clone, Debug, Default)]
pub struct Breaker {
    state: State,
    /// Changes with every transition; wraps.
    generation: u32,
    /// How often it opened without being well in between.
    openings: u32,
    /// How many failures opened it the last time.
    failures: u32,
    closed_at: MonoTime,
    evidence: Evidence,
    slow_start: Option<SlowStart>,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Closed,
    Open {
        until: MonoTime,
    },
    HalfOpen(HalfOpen),
    ForcedOpen {
        until: MonoTime,
    },
    ForcedClosed {
        until: MonoTime,
    },
}

#[derive(Clone, Copy, Debug)]
struct HalfOpen {
    /// When the open time ended.
    since: MonoTime,
    /// Number of the newest probe; only its result counts.
    probe: u32,
    /// Until when that probe keeps the place; `None` if the place is free.
    leased_until: Option<MonoTime>,
    successes: u32,
}

/// The right to send one attempt.
#[must_use = "record or abandon it, or the breaker never hears how the attempt ended"]
#[derive(Debug)]
pub struct Admission {
    generation: u32,
    /// Number of the probe; 0 for an attempt that is none.
    probe: u32,
}

impl Admission {
    /// Whether the attempt tries out a half-open breaker.
    pub fn is_probe(&self) -> bool {
        self.probe > 0
    }
}

impl Breaker {
    /// Asks to send one attempt.
    ///
    /// `lease` is how long it may take at most; a probe keeps its place for no longer than that,
    /// and never longer than 30 s. Changes of state that time alone brought are made here; call
    /// [`Self::advance`] before to hear of them.
    ///
    /// # Errors
    ///
    /// [`Held`], with the time at which it is worth asking again.
    pub fn admit(
        &mut self,
        cfg: &BreakerSettings,
        now: MonoTime,
        safety: Safety,
        lease: Duration,
    ) -> Result<Admission, Held> {
        let _ = self.advance(now);
        self.check(cfg, now, safety)?;
        self.evidence.attempt(now);
        let probe = match &mut self.state {
            State::HalfOpen(half_open) => {
                half_open.probe = half_open.probe.saturating_add(1);
                half_open.leased_until = Some(now + lease.min(LEASE_MAX));
                half_open.probe
            }
            State::Closed
            | State::Open { .. }
            | State::ForcedOpen { .. }
            | State::ForcedClosed { .. } => 0,
        };
        Ok(Admission { generation: self.generation, probe })
    }

    /// Whether [`Self::admit`] would succeed.
    ///
    /// # Errors
    ///
    /// As [`Self::admit`].
    pub fn check(&self, _cfg: &BreakerSettings, now: MonoTime, safety: Safety) -> Result<(), Held> {
        match self.circuit(now) {
            Circuit::Closed | Circuit::ForcedClosed { .. } => return Ok(()),
            Circuit::Open { until } | Circuit::ForcedOpen { until } => {
                return Err(Held::Open { until });
            }
            Circuit::HalfOpen => {}
        }
        let (since, leased_until) = match self.state {
            State::HalfOpen(HalfOpen { since, leased_until, .. }) => (since, leased_until),
            State::Open { until } => (until, None),
            State::Closed | State::ForcedOpen { .. } | State::ForcedClosed { .. } => return Ok(()),
        };
        let until = (since + probe_patience(safety)).max(leased_until.unwrap_or_default());
        if now < until { Err(Held::Probing { until }) } else { Ok(()) }
    }

    /// Hears how an admitted attempt ended.
    ///
    /// `exchange` is a number that differs between exchanges; `hint` is the upstream's own "not
    /// before", below which no open time falls.
    #[expect(clippy::too_many_arguments, reason = "facts of one attempt, named by their types")]
    #[expect(clippy::needless_pass_by_value, reason = "an admission is used up by its result")]
    pub fn record(
        &mut self,
        cfg: &BreakerSettings,
        now: MonoTime,
        admission: Admission,
        exchange: u64,
        health: Health,
        took: Duration,
        hint: Option<Duration>,
        draw: Draw,
    ) -> Option<Transition> {
        if admission.generation != self.generation {
            return None;
        }
        match &mut self.state {
            State::Closed => {
                self.slow_start = self.slow_start.and_then(|slow| slow.count(health));
                let reason = self.evidence.record(cfg, now, exchange, health, took)?;
                Some(self.open(cfg, now, hint, draw, reason))
            }
            State::HalfOpen(half_open) if half_open.probe == admission.probe => {
                half_open.leased_until = None;
                match health {
                    Health::Success => {
                        half_open.successes = half_open.successes.saturating_add(1);
                        (half_open.successes >= cfg.successes_to_close)
                            .then(|| self.close(now, TransitionReason::ProbesSucceeded))
                    }
                    Health::Alive => Some(self.close(now, TransitionReason::ProbeAlive)),
                    Health::Failure | Health::HalfFailure => {
                        Some(self.open(cfg, now, hint, draw, TransitionReason::ProbeFailed))
                    }
                    Health::Neutral => None,
                }
            }
            // Half-open: the lease of this probe ended and another one went, whose word counts.
            State::HalfOpen(_)
            | State::Open { .. }
            | State::ForcedOpen { .. }
            | State::ForcedClosed { .. } => None,
        }
    }

    /// Takes an admission back whose attempt ended without any evidence, or was never sent. A
    /// probe gives its place to the next one.
    #[expect(clippy::needless_pass_by_value, reason = "an abandoned admission is used up")]
    pub fn abandon(&mut self, now: MonoTime, admission: Admission) {
        self.evidence.attempt(now);
        if let State::HalfOpen(half_open) = &mut self.state
            && admission.generation == self.generation
            && admission.probe == half_open.probe
        {
            half_open.leased_until = None;
        }
    }

    /// Makes the change of state that time alone brings, if one is due: from open to half-open,
    /// and from an override that has ended to closed.
    pub fn advance(&mut self, now: MonoTime) -> Option<Transition> {
        match self.state {
            State::Open { until } if now >= until => {
                let half_open =
                    HalfOpen { since: until, probe: 0, leased_until: None, successes: 0 };
                Some(self.turn_to(State::HalfOpen(half_open), TransitionReason::OpenTimeOver))
            }
            State::ForcedOpen { until } | State::ForcedClosed { until } if now >= until => {
                Some(self.reset(now, TransitionReason::ForceExpired))
            }
            State::Closed
            | State::Open { .. }
            | State::HalfOpen(_)
            | State::ForcedOpen { .. }
            | State::ForcedClosed { .. } => None,
        }
    }

    /// Slow start after closing: attempts in flight at most; `None` for no bound.
    ///
    /// An upstream that was just ill is not given the whole waiting crowd at once: two, twice as
    /// many after every five successes, and no bound at all after 30 s.
    pub fn in_flight_cap(&mut self, now: MonoTime) -> Option<u32> {
        self.slow_start = self.slow_start.filter(|slow| slow.lasts_at(now));
        self.slow_start.map(|slow| slow.cap())
    }

    /// Sets or lifts an override by hand; setting it again only moves its end.
    pub fn force(&mut self, now: MonoTime, to: Force, until: MonoTime) -> Option<Transition> {
        let (state, same) = match to {
            Force::Open => {
                (State::ForcedOpen { until }, matches!(self.state, State::ForcedOpen { .. }))
            }
            Force::Closed => {
                (State::ForcedClosed { until }, matches!(self.state, State::ForcedClosed { .. }))
            }
            Force::Auto => {
                let forced =
                    matches!(self.state, State::ForcedOpen { .. } | State::ForcedClosed { .. });
                return forced.then(|| self.reset(now, TransitionReason::Forced));
            }
        };
        if same {
            self.state = state;
            return None;
        }
        self.slow_start = None;
        Some(self.turn_to(state, TransitionReason::Forced))
    }

    /// What it shows. A state that time alone has ended is not shown any more, even if nobody
    /// has asked since.
    pub fn circuit(&self, now: MonoTime) -> Circuit {
        match self.state {
            State::Open { until } if now < until => Circuit::Open { until },
            State::Open { .. } | State::HalfOpen(_) => Circuit::HalfOpen,
            State::ForcedOpen { until } if now < until => Circuit::ForcedOpen { until },
            State::ForcedClosed { until } if now < until => Circuit::ForcedClosed { until },
            State::Closed | State::ForcedOpen { .. } | State::ForcedClosed { .. } => {
                Circuit::Closed
            }
        }
    }

    /// Share of failures in the window, 0.0 to 1.0; nothing is counted unless it is closed.
    pub fn failure_ratio(&self, cfg: &BreakerSettings, now: MonoTime) -> f64 {
        self.evidence.failure_ratio(cfg, now)
    }

    /// Until when nothing flows, if it is open, by itself or by hand; may have passed.
    pub fn open_until(&self) -> Option<MonoTime> {
        match self.state {
            State::Open { until } | State::ForcedOpen { until } => Some(until),
            State::Closed | State::HalfOpen(_) | State::ForcedClosed { .. } => None,
        }
    }

    /// Changes with every transition.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    fn open(
        &mut self,
        cfg: &BreakerSettings,
        now: MonoTime,
        hint: Option<Duration>,
        draw: Draw,
        reason: TransitionReason,
    ) -> Transition {
        let was_well = now.since(self.closed_at) >= WELL_AFTER;
        if matches!(self.state, State::Closed) && was_well {
            self.openings = 0;
        }
        let own = backoff::doubled(cfg.open_for, self.openings, cfg.open_for_max);
        // Jitter of a fifth both ways: sidecars that tripped together do not probe together.
        let own = draw.between(own - own / 5, own.saturating_add(own / 5)).min(cfg.open_for_max);
        self.openings = self.openings.saturating_add(1);
        self.failures = if reason == TransitionReason::ProbeFailed {
            self.failures.saturating_add(1)
        } else {
            self.evidence.failures(cfg, now)
        };
        self.slow_start = None;
        self.turn_to(State::Open { until: now + own.max(hint.unwrap_or_default()) }, reason)
    }

    fn close(&mut self, now: MonoTime, reason: TransitionReason) -> Transition {
        self.closed_at = now;
        self.slow_start = Some(SlowStart::at(now));
        self.turn_to(State::Closed, reason)
    }

    /// Back to closed from an override, with clean counts. What was cut off is let in slowly.
    fn reset(&mut self, now: MonoTime, reason: TransitionReason) -> Transition {
        self.openings = 0;
        let was_open = matches!(self.state, State::ForcedOpen { .. });
        let transition = self.close(now, reason);
        self.slow_start = self.slow_start.filter(|_| was_open);
        transition
    }

    /// Every transition goes through here: the generation changes and the evidence is void.
    fn turn_to(&mut self, state: State, reason: TransitionReason) -> Transition {
        let from = self.state.name();
        self.state = state;
        self.generation = self.generation.wrapping_add(1);
        self.evidence = Evidence::default();
        Transition { from, to: self.state.name(), reason }
    }
}

impl State {
    fn name(&self) -> CircuitName {
        match self {
            Self::Closed => CircuitName::Closed,
            Self::Open { .. } => CircuitName::Open,
            Self::HalfOpen(_) => CircuitName::HalfOpen,
            Self::ForcedOpen { .. } => CircuitName::ForcedOpen,
            Self::ForcedClosed { .. } => CircuitName::ForcedClosed,
        }
    }
}

#[cfg(test)]
mod tests;
