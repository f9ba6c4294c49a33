//! What must hold at every step, at every moment of rest, and at the end of a history.

use std::time::Duration;

use forbear::policy::breaker::Circuit;
use forbear::policy::line::Needs;
use forbear::policy::outcome::{Class, Outcome, Safety};
use forbear::policy::retry::RepeatKind;
use forbear::policy::time::MonoTime;
use forbear::policy::upstream::Refusal;

use crate::world::{Exchange, Said, State, World};

/// Slow start after an outage lasts so long; then limits move by themselves.
const SLOW_START: Duration = Duration::from_secs(33);

impl World {
    fn flies(exchange: &Exchange) -> bool {
        matches!(exchange.state, State::Flying(..) | State::Body(_))
    }

    fn flying(&self, which: impl Fn(&Exchange) -> bool) -> u32 {
        let flying = self.exchanges.values();
        flying.filter(|ex| Self::flies(ex) && which(ex)).count() as u32
    }

    /// An attempt starts: nothing forbids it, and no limit is exceeded.
    pub fn check_go(&mut self, id: u64, up: usize, needs: &Needs) {
        let now = self.now;
        let exchange = &self.exchanges[&id];
        self.require(now <= exchange.deadline, || {
            format!("{id} starts an attempt after its deadline")
        });
        let held = exchange.waits;
        self.require(held <= exchange.wait_max + self.jumped, || {
            format!("{id} was held for {held:?}")
        });
        let seen = &self.ups[up].seen;
        let told = seen.told.get(&(needs.route, needs.credential));
        self.require(told.is_none_or(|told| now >= *told), || {
            format!("{id} goes before the time that the upstream named, {told:?}")
        });
        self.check_limits(id, up, needs);
        self.check_breaker(id, up, needs);
        self.check_order(id, needs);
    }

    fn check_limits(&self, id: u64, up: usize, needs: &Needs) {
        let cfg = &self.ups[up].cfg;
        let was_reloaded = self.limits_changed.is_some() || self.ups[up].seen.reloaded_at.is_some();
        let of_upstream = self.flying(|ex| ex.up == up);
        let of_route = self.flying(|ex| ex.up == up && ex.needs.route == needs.route);
        let setting = self.ups[up].ids.iter().position(|id| *id == needs.route);
        let route = &cfg.routes[setting.unwrap_or(0)];
        let within =
            of_upstream <= cfg.in_flight_max && of_route <= route.in_flight_max.unwrap_or(u32::MAX);
        self.require(within || was_reloaded, || {
            format!("{id} is one too many: {of_upstream} in flight, {of_route} on the route")
        });
        let everybody = self.flying(|_| true);
        let within = everybody <= self.limit_settings.in_flight_max;
        self.require(within || was_reloaded, || {
            format!("{id} is one too many of {everybody} in the process")
        });
        for view in self.limits.view().iter().filter(|pool| !pool.is_process) {
            let with_key = self.with_key(&view.name);
            self.require(with_key <= view.limit || was_reloaded, || {
                format!("{id} is one too many of {with_key} with key {}", view.name)
            });
        }
    }

    /// Of those who joined a key in strict order, the one who joined first goes, and nobody else.
    fn check_order(&self, id: u64, needs: &Needs) {
        for (pool, number) in needs.numbers.iter().flat_map(|numbers| &**numbers) {
            let mut all = self.exchanges.values();
            let is_overtaken =
                all.any(|ex| ex.needs.number_in(*pool).is_some_and(|other| other < *number));
            self.require(!is_overtaken, || format!("{id} goes before its turn in {pool:?}"));
        }
    }

    fn with_key(&self, name: &str) -> u32 {
        self.flying(|ex| {
            let mut pools = ex.needs.pools.iter();
            pools.any(|pool| self.limits.name(*pool).as_deref() == Some(name))
        })
    }

    fn check_breaker(&mut self, id: u64, up: usize, needs: &Needs) {
        let image = self.with(up, |policy, cx| policy.image(cx));
        let name = self.breaker_name(up, needs);
        let mut images = image.breakers.iter();
        let breaker = images.find(|breaker| breaker.route.as_deref() == name.as_deref());
        let circuit = breaker.map(|breaker| breaker.circuit);
        self.exchanges.get_mut(&id).expect("it was there").is_probe = false;
        let seen = &self.ups[up].seen;
        match circuit {
            Some(Circuit::Closed | Circuit::ForcedClosed { .. }) => {}
            Some(Circuit::HalfOpen) => {
                let others = self.exchanges.values().filter(|ex| {
                    ex.up == up
                        && ex.is_probe
                        && self.breaker_name(up, &ex.needs) == name
                        && matches!(ex.state, State::Flying(..))
                });
                let others = others.count() - usize::from(self.exchanges[&id].is_probe);
                let excused =
                    self.jumped > Duration::ZERO || seen.reloaded_at.is_some() || seen.was_forced;
                self.require(others == 0 || excused, || {
                    format!("{id} probes, and {others} do, too")
                });
                let exchange = self.exchanges.get_mut(&id).expect("it was there");
                exchange.is_probe = true;
            }
            Some(Circuit::Open { .. } | Circuit::ForcedOpen { .. }) | None => {
                self.require(false, || format!("{id} goes although {circuit:?}"));
            }
        }
    }

    /// The route whose breaker governs; `None` for the upstream's.
    fn breaker_name(&self, up: usize, needs: &Needs) -> Option<String> {
        let up = &self.ups[up];
        // A reload may have removed the route.
        let setting = up.ids.iter().position(|id| *id == needs.route)?;
        let route = &up.cfg.routes[setting];
        route.breaker.as_ref().map(|_| route.name.to_string())
    }

    /// A refusal comes at once or when the time is over, and names a time that is too late.
    pub fn check_refusal(&self, id: u64, refusal: &Refusal) {
        let exchange = &self.exchanges[&id];
        match refusal {
            Refusal::BreakerOpen { until }
            | Refusal::Cooldown { until }
            | Refusal::Exhausted { until }
            | Refusal::Locked { until }
            | Refusal::Paced { until } => self.require(*until >= self.now, || {
                format!("{id} is refused until the past: {refusal:?}")
            }),
            Refusal::QueueTimeout { .. } => {
                let early = exchange.joined + exchange.wait_max;
                let is_time = self.now >= early.min(exchange.deadline);
                self.require(is_time, || format!("{id} timed out before its time"));
            }
            Refusal::QueueFull | Refusal::Draining => {}
        }
    }

    /// A repeat is harmless, and within its bounds.
    pub fn check_retry(&mut self, id: u64, outcome: &Outcome, kind: RepeatKind) {
        let exchange = self.exchanges.get_mut(&id).expect("it was there");
        let is_free = match outcome.class {
            Class::Throttled | Class::Exhausted => true,
            Class::Stale => !exchange.used_once,
            _ => false,
        };
        exchange.used_once |= matches!(kind, RepeatKind::Stale | RepeatKind::Once);
        exchange.counted += u32::from(!is_free);
        let (counted, processed, up) = (exchange.counted, exchange.processed, exchange.up);
        let is_unsafe = exchange.needs.safety == Safety::Unsafe;
        self.require(processed == 0 || !is_unsafe, || {
            format!("{id} is unsafe, was sent, and is repeated after {outcome:?}")
        });
        let cfg = &self.ups[up].cfg;
        let retry = &cfg.routes[0].retry;
        let attempts_max = u32::from(retry.attempts_max.get());
        self.require(counted < attempts_max, || {
            format!("{id} made {counted} attempts and goes on")
        });
        let seen = &self.ups[up].seen;
        let recent = |times: &[MonoTime], seconds| {
            let since = |at: &&MonoTime| self.now.since(**at) <= Duration::from_secs(seconds);
            times.iter().rev().take_while(since).count() as f64
        };
        let allowed = recent(&seen.firsts, 66) * retry.budget_ratio
            + f64::from(retry.budget_floor_per_minute);
        // The window moves in steps of six seconds, and a probe is not charged.
        let excused = seen.was_half_open;
        let retries = recent(&seen.retries, 53);
        self.require(retries <= allowed || excused, || {
            format!("{retries} retries, {allowed} are allowed")
        });
    }

    /// Every moment is charged to a wait or to an attempt, and no wait was too long.
    pub fn check_account(&self, id: u64, exchange: &Exchange, is_waiting: bool) {
        let counted = exchange.waits + exchange.attempts;
        let wall = self.now.since(exchange.joined);
        // Beyond its attempts, an exchange that is answered lasts as long as its body.
        let exact = counted == wall || (!is_waiting && counted <= wall);
        self.require(exact, || format!("{id}: {wall:?} passed, {counted:?} are accounted for"));
        let held = exchange.waits;
        self.require(held <= exchange.wait_max + self.jumped, || {
            format!("{id} was held for {held:?} of {:?}", exchange.wait_max)
        });
    }

    /// Before time moves on: everybody is where they are counted, and nobody waits who could go.
    pub fn check_rest(&mut self) {
        self.check_conservation();
        let waiting: Vec<u64> = self
            .exchanges
            .iter()
            .filter(|(_, ex)| matches!(ex.state, State::Waiting(_)))
            .map(|(id, _)| *id)
            .collect();
        for id in waiting {
            let Some(State::Waiting(before)) = self.exchanges.get(&id).map(|ex| &ex.state) else {
                continue;
            };
            let before = *before;
            let up = self.exchanges[&id].up;
            let closed_at = self.ups[up].seen.closed_at;
            let slowly = closed_at.is_some_and(|at| self.now.since(at) < SLOW_START);
            let answer = self.ask_again(id);
            match answer {
                Said::Wait(until) => self.require(until >= before || slowly, || {
                    format!("{id} sleeps until {before:?}, but should ask at {until:?}")
                }),
                Said::Go => self.require(slowly, || format!("{id} waits, and could go")),
                // Whoever gets past a limit that moved by itself may meet something longer there.
                Said::Refuse(refusal) => self
                    .require(slowly, || format!("{id} waits, and should be refused: {refusal:?}")),
            }
        }
        self.settle_down();
    }

    fn check_conservation(&mut self) {
        let mut queued = 0;
        for up in 0..self.ups.len() {
            let flying = self.flying(|ex| ex.up == up);
            let policy = &self.ups[up].policy;
            let (in_flight, in_line) = (policy.in_flight(), policy.queued());
            queued += in_line;
            self.require(in_flight == flying, || {
                format!("{in_flight} in flight by the policy of {up}, {flying} in truth")
            });
            let waiting = self.exchanges.values().filter(|ex| ex.up == up).count();
            let waiting = waiting - flying as usize;
            self.require(in_line <= waiting, || {
                format!("{in_line} in line at {up}, but {waiting} wait")
            });
        }
        for view in self.limits.view().iter().filter(|pool| !pool.is_process) {
            let with_key = self.with_key(&view.name);
            self.require(with_key == view.in_use, || {
                format!("{view:?}, but {with_key} with this key are in flight")
            });
        }
        self.require(self.limits.queued() as usize == queued, || {
            format!("{} queued in all, {queued} in lines", self.limits.queued())
        });
    }

    /// Nothing is left of anybody.
    pub fn check_end(&mut self) {
        let left = self.exchanges.len();
        self.require(left == 0, || format!("{left} exchanges never ended"));
        for up in 0..self.ups.len() {
            let policy = &self.ups[up].policy;
            let (in_flight, queued) = (policy.in_flight(), policy.queued());
            self.require(in_flight == 0 && queued == 0, || {
                format!("{in_flight} in flight and {queued} in line are left")
            });
            let image = self.with(up, |policy, cx| policy.image(cx));
            let left = image.routes.iter().map(|(_, count)| count).sum::<u32>();
            self.require(left == 0, || format!("{left} left on routes"));
        }
        let pools = self.limits.view();
        let clean = pools.iter().all(|pool| pool.in_use == 0 && pool.waiting == 0);
        self.require(clean && self.limits.queued() == 0, || {
            format!("permits or members are left: {pools:?}")
        });
    }
}
