//! The life of one exchange, as the asynchronous adapter drives it.

use std::sync::Arc;
use std::time::Duration;

use super::model::Reply;
use super::world::{Client, Due, End, Exchange, Request, Said, State, Watch, World};
use crate::policy::classify::{Failure, Observed, answered, classify};
use crate::policy::hints::Response;
use crate::policy::limits::PoolId;
use crate::policy::line::{BucketId, Needs};
use crate::policy::outcome::{Outcome, Waits};
use crate::policy::retry::RetryMode;
use crate::policy::time::{Draw, MonoTime};
use crate::policy::upstream::{Answer, Ask, Refusal, Report, Verdict};

/// A client that leaves does so within this time.
const LEAVES_WITHIN: Duration = Duration::from_secs(8);

impl<W: Watch> World<W> {
    pub(super) fn arrive(&mut self, number: usize) {
        let Some(client) = self.clients.get_mut(number) else { return };
        if client.requests == 0 || self.job == 0 {
            return;
        }
        client.requests -= 1;
        self.job -= 1;
        let request = client.request.clone();
        self.begin(&request, Some(number));
    }

    /// A request arrives; a client may wait for its end.
    pub fn begin(&mut self, request: &Request, client: Option<usize>) {
        let (needs, ask) = self.wants(request);
        self.joined += 1;
        let (id, up) = (self.joined, request.up);
        self.note(|| format!("{id} joins {up} {needs:?}"));
        let (deadline, wait_max) = (ask.deadline, ask.wait_max);
        let ticket = match self.with(up, |policy, cx| policy.join(cx, ask)) {
            Ok(ticket) => ticket,
            Err(refusal) => {
                self.note(|| format!("{id} is refused: {refusal:?}"));
                self.ended += 1;
                W::turned_away(self, up, &refusal);
                self.leave_keys(&needs);
                self.over(client);
                return;
            }
        };
        self.know_ticket(up, ticket.id(), id);
        let exchange = Exchange {
            client,
            up,
            needs,
            joined: self.now,
            deadline,
            wait_max,
            state: State::Waiting(MonoTime::MAX),
            waits: Waits::default(),
            attempts: Duration::ZERO,
            streamed: Duration::ZERO,
            processed: 0,
            sends: 0,
            ticket: Some(ticket),
            replay: request.replay,
            told: request.told,
            timer: 0,
            answered: None,
            failure: None,
        };
        self.exchanges.insert(id, exchange);
        if request.leaves > 0 && self.rng.u32(0..request.leaves) == 0 {
            let at = self.now + LEAVES_WITHIN.mul_f64(self.rng.f64().powi(3));
            self.plan(at, Due::Leave(id));
        }
        self.ask(id);
    }

    /// The one place where the policy's own terms are made.
    fn wants(&mut self, request: &Request) -> (Needs, Ask) {
        let mut pools: Vec<PoolId> = Vec::with_capacity(request.keys.len());
        for pool in request.keys.iter().filter_map(|key| self.limits.join(key)) {
            pools.push(pool);
        }
        pools.sort_unstable();
        let ids = &self.up(request.up).ids;
        let route = ids.get(request.route).or(ids.first()).copied().unwrap_or_default();
        let numbered = |id: &PoolId| Some((*id, self.limits.number(*id)?));
        let numbers: Vec<_> = pools.iter().filter_map(numbered).collect();
        let needs = Needs {
            route,
            bucket: request.bucket.unwrap_or(BucketId::Route(route)),
            credential: request.credential,
            safety: request.safety,
            pools: Arc::from(pools),
            numbers: (!numbers.is_empty()).then(|| numbers.into()),
            flow: request.flow,
            band: request.band,
            cost: request.cost,
        };
        let deadline = request.patience.map_or(MonoTime::MAX, |patience| self.now + patience);
        let (shape, wait_max) = (request.shape, request.wait_max);
        let ask = Ask { needs: needs.clone(), shape, wait_max, deadline };
        (needs, ask)
    }

    /// Asks for one that waits; nothing for any other.
    pub fn ask(&mut self, id: u64) {
        let state = self.exchanges.get(&id).map(|exchange| &exchange.state);
        if matches!(state, Some(State::Waiting(_))) {
            self.ask_again(id);
        }
    }

    /// Asks for one that waits, and does what the answer says.
    ///
    /// # Panics
    /// If it does not wait.
    pub fn ask_again(&mut self, id: u64) -> Said {
        let exchange = self.exchange(id);
        let up = exchange.up;
        let mut ticket = exchange.ticket.take().expect("whoever waits has a ticket");
        let answer = self.with(up, |policy, cx| policy.ask(cx, &mut ticket));
        let exchange = self.exchange(id);
        exchange.ticket = Some(ticket);
        match answer {
            Answer::Wait { until } => {
                let is_new = !matches!(exchange.state, State::Waiting(before) if before == until);
                exchange.state = State::Waiting(until);
                exchange.timer += u64::from(is_new);
                let timer = exchange.timer;
                W::waits(self, id, until);
                if is_new && until < MonoTime::MAX {
                    self.plan(until, Due::Timer(id, timer));
                }
                Said::Wait(until)
            }
            Answer::Go(grant) => {
                let waited = grant.waited.total();
                exchange.waits.add(&grant.waited);
                exchange.sends += 1;
                let told = exchange.told;
                let (sent, permit) = grant.split();
                let now = self.now;
                let reply = self.received(up, told);
                let (after, processed) = (reply.after, reply.processed);
                let exchange = self.exchange(id);
                exchange.processed += u32::from(processed);
                exchange.state = State::Flying(sent, permit, Box::new(reply), now);
                self.note(|| format!("{id} goes"));
                W::goes(self, id, waited);
                self.plan(now + after, Due::Answer(id));
                Said::Go
            }
            Answer::Refuse(refusal) => {
                self.note(|| format!("{id} is refused: {refusal:?}"));
                W::refused(self, id, &refusal);
                self.end(id, Some(refusal));
                Said::Refuse(refusal)
            }
        }
    }

    /// What the API does about an attempt; forbear does not wait for it for ever.
    fn received(&mut self, up: usize, told: super::model::Told) -> Reply {
        let now = self.now;
        let it = self.ups.get_mut(up).expect("upstreams are only ever added");
        let mut reply = it.model.receive(now, told, &mut self.rng);
        if reply.after > it.attempt_timeout {
            reply.after = it.attempt_timeout;
            reply.result = Err((Failure::HeadTimeout, false));
        }
        reply
    }

    fn exchange(&mut self, id: u64) -> &mut Exchange {
        self.exchanges.get_mut(&id).expect("only ids of those that are not over get here")
    }

    pub(super) fn answer(&mut self, id: u64) {
        let Some(exchange) = self.exchanges.get_mut(&id) else { return };
        let placeholder = State::Waiting(MonoTime::MAX);
        let (sent, permit, reply, sent_at) =
            match std::mem::replace(&mut exchange.state, placeholder) {
                State::Flying(sent, permit, reply, sent_at) => (sent, permit, reply, sent_at),
                other @ (State::Waiting(_) | State::Body(..)) => {
                    exchange.state = other;
                    return;
                }
            };
        let took = self.now.since(sent_at);
        let outcome = self.outcome(id, &reply, took);
        let exchange = self.exchange(id);
        exchange.attempts += took;
        let status = match &reply.result {
            Ok((status, _)) => {
                (exchange.answered, exchange.failure) = (Some(outcome.class), None);
                Some(*status)
            }
            Err((failure, _)) => {
                exchange.failure = Some(*failure);
                None
            }
        };
        let (up, replay) = (exchange.up, exchange.replay);
        let mut ticket = exchange.ticket.take().expect("whoever flies has a ticket");
        let report = Report {
            outcome: outcome.clone(),
            exchange: id,
            took,
            replay,
            retry_mode: RetryMode::Normal,
            draws: [Draw(self.rng.u32(..)), Draw(self.rng.u32(..))],
        };
        W::answered(self, id, &outcome, status);
        let verdict =
            self.with(up, |policy, cx| policy.settle(cx, &mut ticket, sent, &permit, &report));
        self.note(|| format!("{id} got {:?} {:?}: {verdict:?}", outcome.class, outcome.reading));
        match verdict {
            Verdict::Relay | Verdict::GiveUp(_) => {
                let now = self.now;
                let exchange = self.exchange(id);
                exchange.ticket = Some(ticket);
                exchange.state = State::Body(permit, now);
                self.plan(self.now + reply.body, Due::BodyEnd(id));
            }
            Verdict::Retry(plan) => {
                self.up(up).model.done();
                W::repeats(self, id, &outcome, plan.kind);
                self.with(up, |policy, cx| {
                    policy.release(cx, permit);
                    policy.rejoin(cx, &mut ticket, plan);
                });
                self.exchange(id).ticket = Some(ticket);
                self.ask(id);
            }
        }
    }

    fn outcome(&mut self, id: u64, reply: &Reply, took: Duration) -> Outcome {
        let received = self.wall();
        let up = self.exchange(id).up;
        let up = self.up(up);
        match &reply.result {
            Ok((status, headers)) => {
                let response =
                    Response { status: *status, headers, body: None, received, server: None };
                answered(response, &up.dialect).0
            }
            Err((failure, nothing_sent)) => {
                let observed = Observed::Failed { failure: *failure, nothing_sent: *nothing_sent };
                classify(observed, received, took, up.attempt_timeout)
            }
        }
    }

    pub(super) fn body_ends(&mut self, id: u64) {
        if self.exchanges.contains_key(&id) {
            self.end(id, None);
        }
    }

    pub(super) fn leave(&mut self, id: u64) {
        if self.exchanges.contains_key(&id) {
            self.note(|| format!("{id} leaves"));
            self.end(id, None);
        }
    }

    /// Ends an exchange in whatever state it is, as dropping its future does.
    fn end(&mut self, id: u64, refusal: Option<Refusal>) {
        let Some(mut exchange) = self.exchanges.remove(&id) else { return };
        let (up, now) = (exchange.up, self.now);
        let ticket = exchange.ticket.take().expect("it has one until it is over");
        self.forget_ticket(up, ticket.id());
        let placeholder = State::Waiting(MonoTime::MAX);
        let (waited, left) = match std::mem::replace(&mut exchange.state, placeholder) {
            State::Waiting(_) => {
                let waited = self.with(up, |policy, cx| policy.quit(cx, ticket));
                (waited, refusal.is_none())
            }
            State::Flying(sent, permit, _, sent_at) => {
                self.up(up).model.done();
                exchange.attempts += now.since(sent_at);
                let waited = self.with(up, |policy, cx| {
                    policy.abandon(cx, &permit, sent);
                    policy.release(cx, permit);
                    policy.quit(cx, ticket)
                });
                (waited, true)
            }
            State::Body(permit, headed) => {
                self.up(up).model.done();
                exchange.streamed = now.since(headed);
                let waited = self.with(up, |policy, cx| {
                    policy.release(cx, permit);
                    policy.quit(cx, ticket)
                });
                (waited, false)
            }
        };
        exchange.waits.add(&waited);
        self.ended += 1;
        // The last word: what the API said, if it said anything.
        let end = match (left, exchange.answered, refusal, exchange.failure) {
            (false, Some(class), _, _) => End::Answered(class),
            (false, None, Some(refusal), _) => End::Refused(refusal),
            (false, None, None, Some(failure)) => End::Failed(failure),
            (true, _, _, _) | (false, None, None, None) => End::Left,
        };
        W::ended(self, &exchange, end);
        self.leave_keys(&exchange.needs);
        self.over(exchange.client);
    }

    fn over(&mut self, client: Option<usize>) {
        let Some(number) = client else { return };
        let Some(Client { think, .. }) = self.clients.get(number) else { return };
        let think = think.mul_f64(self.rng.f64() * 2.0);
        let at = self.place(self.now + think);
        self.plan(at, Due::Arrive(number));
    }

    fn leave_keys(&mut self, needs: &Needs) {
        for pool in &*needs.pools {
            self.limits.leave(*pool);
        }
        for (pool, number) in needs.numbers.iter().flat_map(|numbers| &**numbers) {
            self.limits.pass_on(*pool, *number);
        }
    }
}
