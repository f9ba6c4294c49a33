//! The life of one exchange, as the asynchronous adapter drives it.

use std::time::Duration;

use forbear::policy::classify::{Observed, classify};
use forbear::policy::limits::PoolId;
use forbear::policy::line::{BucketId, Needs};
use forbear::policy::outcome::{Class, Outcome};
use forbear::policy::retry::{RepeatKind, RetryMode};
use forbear::policy::time::{Draw, MonoTime, WallTime};
use forbear::policy::upstream::{Answer, Ask, GiveUp, Report, Verdict};

use crate::model::{ATTEMPT_TIMEOUT, Reply};
use crate::world::{Due, Exchange, Said, State, Turn, World};

impl World {
    pub(super) fn arrive(&mut self, number: usize) {
        let client = &mut self.clients[number];
        if client.requests == 0 || self.job == 0 {
            return;
        }
        client.requests -= 1;
        self.job -= 1;
        let client = client.clone();
        let mut pools: Vec<PoolId> =
            client.keys.iter().filter_map(|key| self.limits.join(key)).collect();
        pools.sort_unstable();
        let route = self.route_id(client.up, client.route);
        let numbered = |id: &PoolId| Some((*id, self.limits.number(*id)?));
        let numbers: Vec<_> = pools.iter().filter_map(numbered).collect();
        let needs = Needs {
            route,
            bucket: BucketId::Route(route),
            credential: client.credential,
            safety: client.safety,
            pools: pools.into(),
            numbers: (!numbers.is_empty()).then(|| numbers.into()),
            flow: client.flow,
            band: client.band,
            cost: client.cost,
        };
        let deadline = client.patience.map_or(MonoTime::MAX, |patience| self.now + patience);
        let ask = Ask { needs: needs.clone(), shape: 0, wait_max: client.wait_max, deadline };
        self.joined += 1;
        let id = self.joined;
        self.note(|| format!("{id} joins {} {needs:?}", client.up));
        let ticket = match self.with(client.up, |policy, cx| policy.join(cx, ask)) {
            Ok(ticket) => ticket,
            Err(refusal) => {
                self.note(|| format!("{id} is refused: {refusal:?}"));
                self.refusals += 1;
                self.leave_keys(&needs);
                self.over(number);
                return;
            }
        };
        self.ups[client.up].by_ticket.insert(ticket.id(), id);
        let exchange = Exchange {
            client: number,
            up: client.up,
            needs,
            joined: self.now,
            deadline,
            wait_max: client.wait_max,
            ticket: Some(ticket),
            state: State::Waiting(MonoTime::MAX),
            waits: Duration::ZERO,
            attempts: Duration::ZERO,
            counted: 0,
            used_once: false,
            is_probe: false,
            processed: 0,
            sends: 0,
            timer: 0,
        };
        self.exchanges.insert(id, exchange);
        if client.leaves > 0 && self.rng.u32(0..client.leaves) == 0 {
            let at = self.now + Duration::from_secs(8).mul_f64(self.rng.f64().powi(3));
            self.plan(at, Due::Leave(id));
        }
        self.ask(id);
    }

    pub fn ask(&mut self, id: u64) {
        let waits = self.exchanges.get(&id).map(|exchange| &exchange.state);
        if matches!(waits, Some(State::Waiting(_))) {
            self.ask_again(id);
        }
    }

    /// Asks for one that waits, and does what the answer says.
    pub fn ask_again(&mut self, id: u64) -> Said {
        let exchange = self.exchanges.get_mut(&id).expect("it waits");
        let up = exchange.up;
        let mut ticket = exchange.ticket.take().expect("it waits");
        let answer = self.with(up, |policy, cx| policy.ask(cx, &mut ticket));
        let now = self.now;
        let exchange = self.exchanges.get_mut(&id).expect("it was there");
        exchange.ticket = Some(ticket);
        match answer {
            Answer::Wait { until } => {
                let is_new = !matches!(exchange.state, State::Waiting(before) if before == until);
                exchange.state = State::Waiting(until);
                exchange.timer += u64::from(is_new);
                let timer = exchange.timer;
                self.require(until > now, || format!("{id} waits until the past"));
                if is_new && until < MonoTime::MAX {
                    self.plan(until, Due::Timer(id, timer));
                }
                Said::Wait(until)
            }
            Answer::Go(grant) => {
                let waited = grant.waited.total();
                exchange.waits += waited;
                exchange.sends += 1;
                let is_first = exchange.sends == 1;
                let needs = exchange.needs.clone();
                let (sent, permit) = grant.split();
                let seen = &mut self.ups[up].seen;
                seen.sent += 1;
                let flow = needs.flow;
                seen.turns.push(Turn { at: now, exchange: id, flow, waited });
                if is_first {
                    seen.firsts.push(now);
                }
                let reply = self.ups[up].model.receive(now, &mut self.rng);
                let (after, processed) = (reply.after, reply.processed);
                let exchange = self.exchanges.get_mut(&id).expect("it was there");
                exchange.processed += u32::from(processed);
                exchange.state = State::Flying(Some(sent), permit, Box::new(reply), now);
                self.note(|| format!("{id} goes"));
                self.check_go(id, up, &needs);
                self.plan(now + after, Due::Answer(id));
                Said::Go
            }
            Answer::Refuse(refusal) => {
                self.note(|| format!("{id} is refused: {refusal:?}"));
                self.refusals += 1;
                self.check_refusal(id, &refusal);
                self.end(id);
                Said::Refuse(refusal)
            }
        }
    }

    pub(super) fn answer(&mut self, id: u64) {
        let Some(exchange) = self.exchanges.get_mut(&id) else {
            return;
        };
        let placeholder = State::Waiting(MonoTime::MAX);
        let State::Flying(Some(sent), permit, reply, sent_at) =
            std::mem::replace(&mut exchange.state, placeholder)
        else {
            unreachable!("one answer per attempt");
        };
        let took = self.now.since(sent_at);
        exchange.attempts += took;
        let up = exchange.up;
        let mut ticket = exchange.ticket.take().expect("it waits");
        let replay = self.clients[exchange.client].replay;
        let outcome = self.outcome(&reply, took);
        let report = Report {
            outcome: outcome.clone(),
            exchange: id,
            took,
            replay,
            retry_mode: RetryMode::Normal,
            draws: [Draw(self.rng.u32(..)), Draw(self.rng.u32(..))],
        };
        self.see_outcome(id, &outcome);
        let verdict =
            self.with(up, |policy, cx| policy.settle(cx, &mut ticket, sent, &permit, &report));
        self.note(|| format!("{id} got {:?} {:?}: {verdict:?}", outcome.class, outcome.reading));
        match verdict {
            Verdict::Relay | Verdict::GiveUp(_) => {
                if let Verdict::GiveUp(GiveUp::DeadlineTooNear { at }) = verdict {
                    self.require(at >= self.now, || "too near, and in the past".into());
                }
                self.relayed += u64::from(matches!(verdict, Verdict::Relay));
                let exchange = self.exchanges.get_mut(&id).expect("it was there");
                exchange.ticket = Some(ticket);
                exchange.state = State::Body(permit);
                self.plan(self.now + reply.body, Due::BodyEnd(id));
            }
            Verdict::Retry(plan) => {
                self.ups[up].model.done();
                if plan.kind == RepeatKind::Failure {
                    let now = self.now;
                    self.ups[up].seen.retries.push(now);
                }
                self.check_retry(id, &outcome, plan.kind);
                self.with(up, |policy, cx| {
                    policy.release(cx, permit);
                    policy.rejoin(cx, &mut ticket, plan);
                });
                let exchange = self.exchanges.get_mut(&id).expect("it was there");
                exchange.ticket = Some(ticket);
                self.ask(id);
            }
        }
    }

    pub(super) fn outcome(&self, reply: &Reply, took: Duration) -> Outcome {
        let observed = match &reply.result {
            Ok((status, headers)) => Observed::Response { status: *status, headers },
            Err((failure, nothing_sent)) => {
                Observed::Failed { failure: *failure, nothing_sent: *nothing_sent }
            }
        };
        let wall = WallTime { unix_ms: 1_800_000_000_000 } + self.now.since(MonoTime::ZERO);
        classify(observed, wall, took, ATTEMPT_TIMEOUT)
    }

    pub(super) fn see_outcome(&mut self, id: u64, outcome: &Outcome) {
        let now = self.now;
        let exchange = self.exchanges.get_mut(&id).expect("it was there");
        let key = (exchange.needs.route, exchange.needs.credential);
        let seen = &mut self.ups[exchange.up].seen;
        match outcome.class {
            Class::Throttled | Class::Exhausted => {
                seen.refused += 1;
                seen.refused_at.push(now);
            }
            Class::Ok | Class::Permanent => {
                seen.good += 1;
                seen.last_good = now;
            }
            _ => {}
        }
        if let Some(hint) = &outcome.reading.hint
            && matches!(
                outcome.class,
                Class::Throttled | Class::Exhausted | Class::Unhealthy | Class::Overloaded
            )
        {
            let told = seen.told.entry(key).or_default();
            *told = (*told).max(now + hint.wait);
        }
    }

    pub(super) fn body_ends(&mut self, id: u64) {
        if self.exchanges.contains_key(&id) {
            self.end(id);
        }
    }

    pub(super) fn leave(&mut self, id: u64) {
        if self.exchanges.contains_key(&id) {
            self.note(|| format!("{id} leaves"));
            self.end(id);
        }
    }

    /// Ends an exchange in whatever state it is, as dropping its future does.
    pub(super) fn end(&mut self, id: u64) {
        let mut exchange = self.exchanges.remove(&id).expect("it was there");
        let up = exchange.up;
        let ticket = exchange.ticket.take().expect("it has one");
        self.ups[up].by_ticket.remove(&ticket.id());
        let now = self.now;
        let mut is_waiting = false;
        let waited = match exchange.state {
            State::Waiting(_) => {
                is_waiting = true;
                self.with(up, |policy, cx| policy.quit(cx, ticket))
            }
            State::Flying(sent, permit, _, sent_at) => {
                self.ups[up].model.done();
                exchange.attempts += now.since(sent_at);
                self.with(up, |policy, cx| {
                    policy.abandon(cx, &permit, sent.expect("not settled"));
                    policy.release(cx, permit);
                    policy.quit(cx, ticket)
                })
            }
            State::Body(permit) => {
                self.ups[up].model.done();
                self.with(up, |policy, cx| {
                    policy.release(cx, permit);
                    policy.quit(cx, ticket)
                })
            }
        };
        exchange.state = State::Waiting(MonoTime::MAX);
        exchange.waits += waited.total();
        self.ended += 1;
        self.check_account(id, &exchange, is_waiting);
        self.leave_keys(&exchange.needs);
        self.over(exchange.client);
    }

    pub(super) fn over(&mut self, client: usize) {
        let think = self.clients[client].think;
        let think = think.mul_f64(self.rng.f64() * 2.0);
        self.plan(self.now + think, Due::Arrive(client));
    }

    pub(super) fn leave_keys(&mut self, needs: &Needs) {
        for pool in &*needs.pools {
            self.limits.leave(*pool);
        }
        for (pool, number) in needs.numbers.iter().flat_map(|numbers| &**numbers) {
            self.limits.pass_on(*pool, *number);
        }
    }
}
