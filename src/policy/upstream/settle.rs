//! What follows from the end of an attempt: who learns what, and whether there is another.
//!
//! One outcome feeds exactly one illness: the breaker hears of ill upstreams, scopes hear of
//! refusals, and neither hears of the other's. Whether to repeat is [`retry::permitted`]'s; when,
//! and whether that is still in time, is decided here.

use std::time::Duration;

use super::cool::Wide;
use super::{
    Context, Event, GiveUp, Permit, Report, Rest, RetryPlan, Sent, Ticket, UpstreamPolicy, Verdict,
    route_settings,
};
use crate::policy::backoff;
use crate::policy::breaker::{Admission, CircuitName};
use crate::policy::line::BucketId;
use crate::policy::line::Place;
use crate::policy::outcome::{Class, Outcome, Sent as OutcomeSent, WaitKind};
use crate::policy::retry::{self, RepeatKind, RetryAsk};
use crate::policy::scope::Scope;
use crate::policy::settings::{Mode, RetrySettings};
use crate::policy::time::{Draw, MonoTime};

/// A shorter hint says "refused" and not "when": several APIs send `Retry-After: 0` with every 429.
/// Since refusals use up no attempts, obeying it to the letter would be a storm.
const SAID_WHEN_MIN: Duration = Duration::from_millis(20);

impl UpstreamPolicy {
    /// Hears how an attempt ended, and decides what follows.
    pub fn settle(
        &mut self,
        cx: &mut Context<'_>,
        ticket: &mut Ticket,
        sent: Sent,
        permit: &Permit,
        report: &Report,
    ) -> Verdict {
        let is_probe = sent.admission.as_ref().is_some_and(Admission::is_probe);
        let (sent_at, number) = (sent.at, sent.number);
        let in_flight = sent.in_flight;
        self.tell_breaker(cx, sent, permit, report);
        self.answered(permit, sent_at);
        self.tell_lock(cx, permit.credential, &report.outcome, sent_at);
        let named = self.hear_bucket(ticket.shape, &report.outcome.reading);
        let bucket = named.unwrap_or(permit.scope.0);
        ticket.needs.bucket = named.unwrap_or(ticket.needs.bucket);
        let served = self.scopes.get(&permit.scope).is_some_and(Scope::serves);
        let pause = if self.is_barren(ticket.shape, &report.outcome, served) {
            Pause::Growing
        } else {
            self.tell_scopes(cx, permit, bucket, report, sent_at, in_flight)
        };
        self.tell_quota(cx, permit, bucket, &report.outcome, number);
        let verdict = self.decide(cx, ticket, report, pause, is_probe);
        self.pump(cx);
        verdict
    }

    /// Back to the line, in the order of the first arrival.
    pub fn rejoin(&mut self, cx: &mut Context<'_>, ticket: &mut Ticket, plan: RetryPlan) {
        // Its answer was read to the end meanwhile, and what it said was put on disk.
        let meanwhile = cx.now.since(ticket.waiting_since);
        let kind = match plan.kind {
            RepeatKind::Refused => WaitKind::Cooldown,
            RepeatKind::Failure => WaitKind::Backoff,
            RepeatKind::Once | RepeatKind::Stale => WaitKind::Queue,
        };
        ticket.waited.charge(kind, meanwhile);
        ticket.wait_left = ticket.wait_left.saturating_sub(meanwhile);
        ticket.waiting_since = cx.now;
        if plan.not_before > cx.now {
            self.resting.insert(ticket.id);
            ticket.resting = Some(Rest { since: cx.now, until: plan.not_before });
        } else {
            self.reenter(cx, ticket);
            self.pump(cx);
        }
    }

    fn tell_breaker(&mut self, cx: &mut Context<'_>, sent: Sent, permit: &Permit, report: &Report) {
        let Some(admission) = self.admission(sent, permit) else {
            return;
        };
        let is_probe = admission.is_probe();
        let outcome = &report.outcome;
        let hint = match outcome.class {
            Class::Unhealthy => outcome.reading.hint.as_ref().map(|hint| hint.wait),
            Class::Ok
            | Class::Permanent
            | Class::Credential
            | Class::Throttled
            | Class::Exhausted
            | Class::Transient
            | Class::Misdirected
            | Class::Overloaded
            | Class::TimedOut
            | Class::Stale
            | Class::Client => None,
        };
        let [draw, _] = report.draws;
        let (settings, breaker) = self.breaker_of(cx.cfg, permit.route);
        let transition = breaker.record(
            settings,
            cx.now,
            admission,
            report.exchange,
            outcome.health,
            report.took,
            hint,
            draw,
        );
        if let Some(transition) = transition {
            if transition.to == CircuitName::Open {
                self.tightened += 1;
            }
            let name = self.breaker_name(permit.route);
            self.events.push(Event::Breaker(name, transition));
        }
        let slowly = self.breaker_of(cx.cfg, permit.route).1.in_flight_cap(cx.now);
        if transition.is_some() || is_probe {
            self.line.unpark_all();
        } else if slowly.is_some() {
            self.line.unpark_place(Place::Route(permit.route));
        }
    }

    /// Returns the pause that this exchange alone has to make.
    fn tell_scopes(
        &mut self,
        cx: &Context<'_>,
        permit: &Permit,
        bucket: BucketId,
        report: &Report,
        sent_at: MonoTime,
        in_flight: u32,
    ) -> Pause {
        let outcome = &report.outcome;
        let [_, draw] = report.draws;
        let mut pause = Pause::Backoff;
        match outcome.class {
            Class::Ok
            | Class::Permanent
            | Class::Credential
            | Class::Transient
            | Class::Misdirected => self.tell_success(cx, permit, sent_at),
            Class::Throttled | Class::Exhausted => {
                let exhausted = outcome.class == Class::Exhausted;
                if let Some(hint) = &outcome.reading.hint {
                    let reach = outcome.reading.reach;
                    self.cool_down(cx, permit, bucket, hint, exhausted, reach, Wide::Credential);
                    pause = if hint.wait < SAID_WHEN_MIN { Pause::Growing } else { Pause::None };
                } else {
                    pause = self.refused_without_hint(cx, permit, sent_at, in_flight, draw);
                }
            }
            Class::Unhealthy | Class::Overloaded => {
                if let Some(hint) = &outcome.reading.hint {
                    let reach = outcome.reading.reach;
                    self.cool_down(cx, permit, bucket, hint, false, reach, Wide::Upstream);
                }
                if outcome.class == Class::Overloaded {
                    pause = Pause::Refused;
                }
            }
            Class::TimedOut | Class::Stale | Class::Client => {}
        }
        pause
    }

    /// What is told of a bucket that the answer itself names was counted there, whatever it was
    /// taken for when it was sent; so its newest attempt is as old as this one.
    fn tell_quota(
        &mut self,
        cx: &Context<'_>,
        permit: &Permit,
        bucket: BucketId,
        outcome: &Outcome,
        number: u64,
    ) {
        let told = &outcome.reading.quotas;
        let refused = matches!(outcome.class, Class::Throttled | Class::Exhausted);
        if outcome.sent != OutcomeSent::Answered {
            return;
        }
        if bucket != permit.scope.0 {
            let (key, scope) = self.scope(cx, bucket, permit.scope.1);
            if scope.learn(cx.now, scope.newest(), told, refused) {
                self.tell_limits(cx.now, key);
            }
            return;
        }
        let Some(scope) = self.scopes.get_mut(&permit.scope) else { return };
        let before = scope.only_quota();
        if scope.learn(cx.now, number, told, refused) {
            self.tell_limits(cx.now, permit.scope);
        }
        if !told.is_empty() && self.scopes.len() > 1 {
            self.compare_quotas(cx, permit.scope, before);
        }
    }

    fn tell_success(&mut self, cx: &Context<'_>, permit: &Permit, sent_at: MonoTime) {
        let max = cx.cfg.in_flight_max;
        self.whole.succeeded(cx.now, sent_at, max);
        if let Some(scope) = self.credentials.get_mut(&permit.credential) {
            scope.succeeded(cx.now, sent_at, max);
        }
        if let Some(scope) = self.scopes.get_mut(&permit.scope) {
            scope.succeeded(cx.now, sent_at, max);
        }
    }

    fn refused_without_hint(
        &mut self,
        cx: &Context<'_>,
        permit: &Permit,
        sent_at: MonoTime,
        in_flight: u32,
        draw: Draw,
    ) -> Pause {
        let Some(scope) = self.scopes.get_mut(&permit.scope) else {
            return Pause::Backoff;
        };
        let Some(nth) = scope.refused_without_hint(cx.now, sent_at, in_flight) else {
            return Pause::Backoff;
        };
        let wait = backoff::refused_delay(nth, draw);
        scope.pause(cx.now, wait);
        self.tightened += 1;
        self.line.raise(Place::Scope(permit.scope.0, permit.scope.1));
        Pause::None
    }

    fn decide(
        &mut self,
        cx: &Context<'_>,
        ticket: &mut Ticket,
        report: &Report,
        pause: Pause,
        is_probe: bool,
    ) -> Verdict {
        let outcome = &report.outcome;
        let Some(route) = route_settings(cx.cfg, &self.routes, ticket.needs.route) else {
            return Verdict::Relay;
        };
        if matches!(outcome.class, Class::Ok | Class::Permanent) || route.mode == Mode::Shadow {
            return Verdict::Relay;
        }
        let retry = &route.retry;
        let uncounted = match outcome.class {
            Class::Throttled | Class::Exhausted => !retry.throttled_counts,
            Class::Stale => !ticket.used_once,
            Class::Ok
            | Class::Permanent
            | Class::Credential
            | Class::Transient
            | Class::Misdirected
            | Class::Unhealthy
            | Class::Overloaded
            | Class::TimedOut
            | Class::Client => false,
        };
        ticket.counted = ticket.counted.saturating_add(u8::from(!uncounted));
        let ask = RetryAsk {
            attempt: ticket.attempts,
            counted: ticket.counted,
            safety: ticket.needs.safety,
            replay: report.replay,
            used_once: ticket.used_once,
            retry_mode: report.retry_mode,
        };
        let kind = match retry::permitted(outcome, retry, &ask) {
            Ok(kind) => kind,
            Err(why) => {
                let opens = self.stands_closed_until(cx, ticket);
                return Verdict::GiveUp(match why {
                    retry::GiveUp::NotRetryable => GiveUp::NotRetryable { opens },
                    retry::GiveUp::AttemptsSpent => GiveUp::AttemptsSpent { opens },
                    retry::GiveUp::BodyNotReplayable => GiveUp::BodyNotReplayable { opens },
                });
            }
        };
        let not_before = self.rest(cx, ticket, kind, pause, retry, report);
        // What is said of one request alone parks nobody else, but is obeyed all the same.
        let told = outcome.reading.hint.as_ref().filter(|_| outcome.class == Class::Transient);
        let not_before = told.map_or(not_before, |hint| not_before.max(cx.now + hint.wait));
        self.schedule(cx, ticket, kind, not_before, retry, is_probe)
    }

    fn rest(
        &self,
        cx: &Context<'_>,
        ticket: &mut Ticket,
        kind: RepeatKind,
        pause: Pause,
        retry: &RetrySettings,
        report: &Report,
    ) -> MonoTime {
        let [_, draw] = report.draws;
        let nth = u32::from(ticket.attempts);
        let delay = match (kind, pause) {
            (RepeatKind::Once | RepeatKind::Stale, _) | (RepeatKind::Refused, Pause::None) => {
                return cx.now;
            }
            (RepeatKind::Refused | RepeatKind::Failure, Pause::Refused) => {
                backoff::refused_delay(nth, draw)
            }
            (RepeatKind::Refused, Pause::Growing) => {
                backoff::delay(&retry.backoff, nth, ticket.last_backoff, draw)
            }
            // Others are served, so a short step back is enough.
            (RepeatKind::Refused, Pause::Backoff) => {
                backoff::delay(&retry.backoff, 1, ticket.last_backoff, draw)
            }
            (RepeatKind::Failure, Pause::Backoff | Pause::Growing | Pause::None) => {
                let counted = u32::from(ticket.counted.max(1));
                backoff::delay(&retry.backoff, counted, ticket.last_backoff, draw)
            }
        };
        ticket.last_backoff = delay;
        cx.now + delay
    }

    /// Stop before the delay: a wait that would end too late is not started.
    fn schedule(
        &mut self,
        cx: &Context<'_>,
        ticket: &mut Ticket,
        kind: RepeatKind,
        not_before: MonoTime,
        retry: &RetrySettings,
        is_probe: bool,
    ) -> Verdict {
        ticket.waiting_since = cx.now;
        let earliest = not_before.max(self.opens_at(cx, ticket));
        if self.draining || earliest > ticket.give_up_at() {
            return Verdict::GiveUp(GiveUp::DeadlineTooNear { at: earliest });
        }
        match kind {
            RepeatKind::Failure => {
                let (ratio, floor) = (retry.budget_ratio, retry.budget_floor_per_minute);
                if !is_probe && !self.budget.try_withdraw(ratio, floor, cx.now) {
                    let opens = self.stands_closed_until(cx, ticket);
                    return Verdict::GiveUp(GiveUp::BudgetSpent { opens });
                }
            }
            RepeatKind::Once | RepeatKind::Stale => ticket.used_once = true,
            RepeatKind::Refused => {}
        }
        let fresh = matches!(kind, RepeatKind::Once | RepeatKind::Stale);
        Verdict::Retry(RetryPlan { not_before, fresh, kind })
    }

    /// When breaker and cooldowns, as they stand, would let this exchange through.
    fn opens_at(&mut self, cx: &Context<'_>, ticket: &Ticket) -> MonoTime {
        self.stands_closed_until(cx, ticket).unwrap_or(cx.now)
    }

    /// The same, if anything stands in the way whose end is known.
    fn stands_closed_until(&mut self, cx: &Context<'_>, ticket: &Ticket) -> Option<MonoTime> {
        let obstacle = self.check_barriers(cx, ticket.id, &ticket.needs).err()?;
        obstacle.known_end().and(obstacle.until)
    }
}

/// What this exchange alone has to do before its next attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pause {
    /// Nothing: the scope is closed for everybody until the upstream's time.
    None,
    /// Its own backoff.
    Backoff,
    /// The same, longer with each refusal.
    Growing,
    /// The longer one of a refusal or an overload that named no time.
    Refused,
}
