//! The only place where an exchange waits.
//!
//! The policy says "go", "wait until" or "no"; this file turns "wait until" into a timer and a
//! wake-up, and makes sure that a dropped future leaves the line and gives its place back.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::exchange::{Exchange, Keys};
use super::reject::{Code, HintRecord, Rejection};
use crate::gateway::spending;
use crate::gateway::upstream::UpstreamState;
use crate::policy::limits::Limits;
use crate::policy::line::{CredentialId, Needs, RouteId, TicketId};
use crate::policy::outcome::{WaitKind, Waits};
use crate::policy::time::MonoTime;
use crate::policy::upstream::{
    Answer, Ask, Grant, Permit, Refusal, Report, RetryPlan, Sent, Ticket, Verdict,
};
use crate::telemetry::story::Notes;
use crate::transport::BodyFault;

/// A place in line, left when dropped.
pub(super) struct Place {
    state: Arc<UpstreamState>,
    ticket: Option<Ticket>,
    /// The usual case: nothing was in the way, and standing in line and going was one step.
    ready: Option<(InFlight, Before)>,
    woken: Option<(TicketId, Arc<Notify>)>,
}

impl Place {
    /// Stands in line at `now`; notes whose quota it spends and, if it has to wait, how many stand
    /// before it.
    pub(super) fn join(
        exchange: &Exchange<'_>,
        keys: &Keys,
        now: MonoTime,
        notes: &mut Notes,
    ) -> Result<Self, Refusal> {
        let state = &exchange.upstream.state;
        let route = exchange.upstream.route_ids.get(exchange.route).copied();
        let route = route.unwrap_or(RouteId(0));
        let (method, path) = (&exchange.parts.method, exchange.path);
        let spending = &exchange.upstream.spending;
        let cost = exchange.directives.cost.unwrap_or_else(|| spending.cost(method, path));
        let credential = CredentialId(exchange.credential());
        notes.credential = credential;
        let ask = Ask {
            needs: Needs {
                route,
                bucket: spending.bucket(method, path, route),
                cost,
                credential,
                safety: exchange.safety,
                pools: keys.pools.clone(),
                numbers: keys.numbers.clone(),
                flow: exchange.flow(credential),
                band: exchange.directives.priority.unwrap_or_default(),
            },
            shape: spending::shape(method, path),
            wait_max: exchange.wait_max(),
            deadline: exchange.deadline,
        };
        let (ticket, grant) = state.with_at(now, |policy, cx| {
            let mut ticket = policy.join(cx, ask)?;
            let answer = policy.ask(cx, &mut ticket);
            match answer {
                Answer::Go(grant) => Ok((ticket, Some(grant))),
                Answer::Wait { .. } => {
                    // One of them is this one.
                    let others = policy.queued().checked_sub(1);
                    notes.behind = others.and_then(|others| others.try_into().ok());
                    Ok((ticket, None))
                }
                Answer::Refuse(refusal) => {
                    policy.quit(cx, ticket);
                    Err(refusal)
                }
            }
        })?;
        let ready = grant.map(|grant| InFlight::new(state, grant));
        Ok(Self { state: state.clone(), ticket: Some(ticket), ready, woken: None })
    }

    /// Waits until this exchange may send. Beside it the request body is read ahead, by which a
    /// client that left is noticed; what an exchange waited in vain is added to `in_vain`.
    pub(super) async fn turn(
        &mut self,
        exchange: &Exchange<'_>,
        in_vain: &mut Waits,
    ) -> Result<(InFlight, Before), Stop> {
        match self.ready.take() {
            Some(ready) => Ok(ready),
            // Boxed, so that those who need not wait do not carry what waiting needs.
            None => Box::pin(self.wait(exchange, in_vain)).await,
        }
    }

    async fn wait(
        &mut self,
        exchange: &Exchange<'_>,
        in_vain: &mut Waits,
    ) -> Result<(InFlight, Before), Stop> {
        let clock = exchange.gateway.common.clock;
        let mut waiting = Waiting { place: self, in_vain, is_over: false };
        let mut reading = pin!(exchange.read_ahead());
        loop {
            let Place { state, ticket, woken, ready: _ } = &mut *waiting.place;
            let Some(ticket) = ticket else { return Err(Stop::Refused(Refusal::Draining)) };
            match state.with(|policy, cx| policy.ask(cx, ticket)) {
                Answer::Go(grant) => {
                    let granted = InFlight::new(state, grant);
                    waiting.is_over = true;
                    return Ok(granted);
                }
                Answer::Refuse(refusal) => {
                    waiting.is_over = true;
                    return Err(Stop::Refused(refusal));
                }
                Answer::Wait { until } => {
                    let Some((_, woken)) = woken else {
                        // From here on wake-ups are heard; one that came before is in the next answer.
                        let id = ticket.id();
                        *woken = Some((id, state.waker(id)));
                        continue;
                    };
                    tokio::select! {
                        () = clock.sleep_until(until) => {}
                        () = woken.notified() => {}
                        fault = &mut reading => return Err(Stop::Broken(fault)),
                    }
                }
            }
        }
    }

    /// Hears at `now` how the attempt ended; what next? Unless the attempt is to be repeated, the
    /// place in line is left.
    pub(super) fn settle(
        &mut self,
        in_flight: &mut InFlight,
        report: &Report,
        now: MonoTime,
    ) -> Verdict {
        let (Some(sent), Some(permit)) = (in_flight.sent.take(), &in_flight.permit) else {
            return Verdict::Relay;
        };
        let place = &mut self.ticket;
        self.state.with_at(now, |policy, cx| {
            let Some(ticket) = place else { return Verdict::Relay };
            let verdict = policy.settle(cx, ticket, sent, permit, report);
            if !matches!(verdict, Verdict::Retry(_))
                && let Some(ticket) = place.take()
            {
                policy.quit(cx, ticket);
            }
            verdict
        })
    }

    /// What a refused exchange waited at last.
    pub(super) fn waited(&self) -> Waits {
        self.ticket.as_ref().map(|ticket| *ticket.waited()).unwrap_or_default()
    }

    /// Back to the line; the place in flight must have been given back before.
    pub(super) fn rejoin(&mut self, plan: RetryPlan) {
        if let Some(ticket) = &mut self.ticket {
            self.state.with(|policy, cx| policy.rejoin(cx, ticket, plan));
        }
    }

    /// Out of the line, if it still stands there; says what it waited since its last attempt.
    fn leave(&mut self) -> Waits {
        let ticket = self.ticket.take();
        ticket.map_or_else(Waits::default, |ticket| {
            self.state.with(|policy, cx| policy.quit(cx, ticket))
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
        if let Some((id, _)) = &self.woken {
            self.state.forget_waker(*id);
        }
    }
}

/// One wait; if nobody is left to hear how it ends, it ends here, and its time is accounted for.
struct Waiting<'a> {
    place: &'a mut Place,
    in_vain: &'a mut Waits,
    is_over: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.in_vain.add(&self.place.leave());
        }
    }
}

/// What came before an attempt.
pub(super) struct Before {
    /// When it was let go.
    pub(super) at: MonoTime,
    pub(super) waited: Waits,
    /// In shadow mode: what would have held it.
    pub(super) shadow: Option<WaitKind>,
}

/// Why nothing is sent.
pub(super) enum Stop {
    /// The policy refused.
    Refused(Refusal),
    /// The client broke its own request body while it waited.
    Broken(BodyFault),
}

/// An attempt that may be sent. Dropped unsettled, it tells the breaker that nothing was learned;
/// dropped at all, it gives its place in flight to the next in line.
pub(super) struct InFlight {
    state: Arc<UpstreamState>,
    sent: Option<Sent>,
    permit: Option<Permit>,
}

impl InFlight {
    fn new(state: &Arc<UpstreamState>, grant: Grant) -> (Self, Before) {
        let before = Before { at: grant.sent_at(), waited: grant.waited, shadow: grant.shadow };
        let (sent, permit) = grant.split();
        (Self { state: state.clone(), sent: Some(sent), permit: Some(permit) }, before)
    }

    /// Gives the place up, by a clock that was read just before.
    pub(super) fn end(mut self, now: MonoTime) {
        self.release(now);
    }

    fn release(&mut self, now: MonoTime) {
        let (sent, Some(permit)) = (self.sent.take(), self.permit.take()) else { return };
        self.state.with_at(now, |policy, cx| {
            if let Some(sent) = sent {
                policy.abandon(cx, &permit, sent);
            }
            policy.release(cx, permit);
        });
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.permit.is_some() {
            self.release(self.state.now());
        }
    }
}

/// The refusal as the client is told of it, with names and times.
pub(super) fn rejection(exchange: &Exchange<'_>, refusal: Refusal) -> Rejection {
    let clock = &exchange.gateway.common.clock;
    let anchor = clock.anchor();
    let name = &*exchange.upstream.config.name;
    let held = exchange.held_max();
    let at = |code: Code, until: MonoTime, what: &str| {
        let wait = until.since(anchor.mono);
        let detail = format!(
            "{what} until {}, in {}; this exchange may be held for {} at most.",
            anchor.wall(until),
            seconds(wait),
            seconds(held),
        );
        Rejection::new(code, detail).with_retry_at(anchor.wall, wait)
    };
    match refusal {
        Refusal::BreakerOpen { until } => {
            let what = format!("The breaker of upstream {name} lets nothing like this through");
            at(Code::BreakerOpen, until, &what).with_scope(scope_of_breaker(exchange))
        }
        Refusal::Cooldown { until } => {
            let what = format!("Upstream {name} asked for no requests");
            with_hint(exchange, at(Code::Cooldown, until, &what), until)
        }
        Refusal::Exhausted { until } => {
            let what = format!("The quota of upstream {name} is used up");
            with_hint(exchange, at(Code::QuotaExhausted, until, &what), until)
        }
        Refusal::Paced { until } => {
            let what = format!("The quota of upstream {name} has no place");
            at(Code::Paced, until, &what)
        }
        Refusal::Locked { until } => {
            let what = format!(
                "Upstream {name} refused this credential five times in a row or more: correct it. \
                 Nothing goes with it until {}, in {}, and since waiting heals no credential, this \
                 exchange is not held.",
                anchor.wall(until),
                seconds(until.since(anchor.mono)),
            );
            Rejection::new(Code::CredentialLocked, what)
                .with_retry_at(anchor.wall, until.since(anchor.mono))
                .with_scope("credential".to_owned())
        }
        Refusal::QueueFull => {
            let detail = format!(
                "As many exchanges wait for upstream {name} as may: raise upstreams.{name}.queue_max \
                 or limits.queue_max, or send less at once."
            );
            Rejection::new(Code::QueueFull, detail)
                .with_retry_at(anchor.wall, Duration::from_secs(1))
        }
        Refusal::QueueTimeout { pool } => {
            let limit = pool.and_then(|pool| {
                let limits = exchange.gateway.common.limits();
                let key = limits.name(pool)?;
                if !Limits::is_process(pool) {
                    let declared = limits.declared(pool)?;
                    exchange.gateway.common.metrics.key(&declared).timeout.inc();
                }
                Some((Limits::is_process(pool), key))
            });
            let (setting, key) = match limit {
                Some((true, _)) => ("limits.in_flight_max".to_owned(), None),
                Some((false, key)) => (format!("keys.{key}.in_flight_max"), Some(key)),
                None => (
                    format!(
                        "in_flight_max of upstream {name} or of the route, or a limit learned from \
                         its refusals,"
                    ),
                    None,
                ),
            };
            let detail = format!(
                "No place in flight within {}: everything that {setting} permits is in use.",
                seconds(held)
            );
            let mut rejection = Rejection::new(Code::QueueTimeout, detail)
                .with_retry_at(anchor.wall, Duration::from_secs(1));
            rejection.key = key;
            rejection
        }
        Refusal::Draining => Rejection::draining(anchor.wall),
    }
}

/// Adds where the wait comes from: the cooldown that ends at `until` is the one that refused, and
/// no other caller's may be told of.
fn with_hint(exchange: &Exchange<'_>, rejection: Rejection, until: MonoTime) -> Rejection {
    let image = exchange.upstream.state.image();
    let Some(cooldown) = image.cooldowns.into_iter().find(|cooldown| cooldown.until == until)
    else {
        return rejection;
    };
    let anchor = exchange.gateway.common.clock.anchor();
    let mut rejection = rejection.with_scope(cooldown.scope);
    rejection.hint = cooldown.source.map(|source| HintRecord {
        source,
        wait: cooldown.wait,
        received_at: anchor.wall(cooldown.received),
        raw: cooldown.raw.clone(),
    });
    rejection
}

fn scope_of_breaker(exchange: &Exchange<'_>) -> String {
    let settings = exchange.upstream.config.policy.routes.get(exchange.route);
    match settings.filter(|route| route.breaker.is_some()) {
        Some(route) => format!("route {}", route.name),
        None => "upstream".to_owned(),
    }
}

/// For people: `1.5 s`, `50 s`.
pub(super) fn seconds(span: Duration) -> String {
    let tenths = span.as_millis().div_ceil(100);
    if tenths.is_multiple_of(10) {
        format!("{} s", tenths / 10)
    } else {
        format!("{}.{} s", tenths / 10, tenths % 10)
    }
}
