//! What must hold at every step, at every moment of rest, and at the end of a history.

use std::time::Duration;

use forbear::policy::breaker::Circuit;
use forbear::policy::line::Needs;
use forbear::policy::outcome::{Class, Outcome, Safety};
use forbear::policy::retry::RepeatKind;
use forbear::policy::time::MonoTime;
use forbear::policy::upstream::Refusal;
use forbear::simulate::world::{Exchange, Said, State};

use crate::world::{World, require};

/// Slow start after an outage lasts so long; then limits move by themselves.
const SLOW_START: Duration = Duration::from_secs(33);

fn flies(exchange: &Exchange) -> bool {
    matches!(exchange.state, State::Flying(..) | State::Body(..))
}

fn flying(world: &World, which: impl Fn(&Exchange) -> bool) -> u32 {
    let flying = world.exchanges.values();
    flying.filter(|ex| flies(ex) && which(ex)).count() as u32
}

/// An attempt starts: nothing forbids it, and no limit is exceeded.
pub fn check_go(world: &mut World, id: u64, up: usize, needs: &Needs) {
    let now = world.now;
    let exchange = &world.exchanges[&id];
    require(world, now <= exchange.deadline, || {
        format!("{id} starts an attempt after its deadline")
    });
    let held = exchange.waits.total();
    require(world, held <= exchange.wait_max + world.watch.jumped, || {
        format!("{id} was held for {held:?}")
    });
    let seen = &world.watch.seen[up];
    let told = seen.told.get(&(needs.route, needs.credential));
    require(world, told.is_none_or(|told| now >= *told), || {
        format!("{id} goes before the time that the upstream named, {told:?}")
    });
    check_limits(world, id, up, needs);
    check_breaker(world, id, up, needs);
    check_order(world, id, needs);
}

/// Of those who joined a key in strict order, the one who joined first goes, and nobody else.
fn check_order(world: &World, id: u64, needs: &Needs) {
    for (pool, number) in needs.numbers.iter().flat_map(|numbers| &**numbers) {
        let mut all = world.exchanges.values();
        let is_overtaken =
            all.any(|ex| ex.needs.number_in(*pool).is_some_and(|other| other < *number));
        require(world, !is_overtaken, || format!("{id} goes before its turn in {pool:?}"));
    }
}

fn check_limits(world: &World, id: u64, up: usize, needs: &Needs) {
    let cfg = &world.ups[up].cfg;
    let was_reloaded =
        world.watch.limits_changed.is_some() || world.watch.seen[up].reloaded_at.is_some();
    let of_upstream = flying(world, |ex| ex.up == up);
    let of_route = flying(world, |ex| ex.up == up && ex.needs.route == needs.route);
    let setting = world.ups[up].ids.iter().position(|id| *id == needs.route);
    let route = &cfg.routes[setting.unwrap_or(0)];
    let within =
        of_upstream <= cfg.in_flight_max && of_route <= route.in_flight_max.unwrap_or(u32::MAX);
    require(world, within || was_reloaded, || {
        format!("{id} is one too many: {of_upstream} in flight, {of_route} on the route")
    });
    let everybody = flying(world, |_| true);
    let within = everybody <= world.watch.limit_settings.in_flight_max;
    require(world, within || was_reloaded, || {
        format!("{id} is one too many of {everybody} in the process")
    });
    for view in world.limits.view().iter().filter(|pool| !pool.is_process) {
        let with_key = with_key(world, &view.name);
        require(world, with_key <= view.limit || was_reloaded, || {
            format!("{id} is one too many of {with_key} with key {}", view.name)
        });
    }
}

fn with_key(world: &World, name: &str) -> u32 {
    flying(world, |ex| {
        let mut pools = ex.needs.pools.iter();
        pools.any(|pool| world.limits.name(*pool).as_deref() == Some(name))
    })
}

fn check_breaker(world: &mut World, id: u64, up: usize, needs: &Needs) {
    let image = world.with(up, |policy, cx| policy.image(cx));
    let name = breaker_name(world, up, needs);
    let mut images = image.breakers.iter();
    let breaker = images.find(|breaker| breaker.route.as_deref() == name.as_deref());
    let circuit = breaker.map(|breaker| breaker.circuit);
    world.watch.judged.entry(id).or_default().is_probe = false;
    let seen = &world.watch.seen[up];
    match circuit {
        Some(Circuit::Closed | Circuit::ForcedClosed { .. }) => {}
        Some(Circuit::HalfOpen) => {
            let others = world.exchanges.iter().filter(|(id, ex)| {
                ex.up == up
                    && world.watch.judged.get(id).is_some_and(|judged| judged.is_probe)
                    && breaker_name(world, up, &ex.needs) == name
                    && matches!(ex.state, State::Flying(..))
            });
            let others = others.count();
            let excused = world.watch.jumped > Duration::ZERO
                || seen.reloaded_at.is_some()
                || seen.was_forced;
            require(world, others == 0 || excused, || format!("{id} probes, and {others} do, too"));
            world.watch.judged.entry(id).or_default().is_probe = true;
        }
        Some(Circuit::Open { .. } | Circuit::ForcedOpen { .. }) | None => {
            require(world, false, || format!("{id} goes although {circuit:?}"));
        }
    }
}

/// The route whose breaker governs; `None` for the upstream's.
fn breaker_name(world: &World, up: usize, needs: &Needs) -> Option<String> {
    let up = &world.ups[up];
    // A reload may have removed the route.
    let setting = up.ids.iter().position(|id| *id == needs.route)?;
    let route = &up.cfg.routes[setting];
    route.breaker.as_ref().map(|_| route.name.to_string())
}

/// A refusal comes at once or when the time is over, and names a time that is too late.
pub fn check_refusal(world: &World, id: u64, refusal: &Refusal) {
    let exchange = &world.exchanges[&id];
    match refusal {
        Refusal::BreakerOpen { until }
        | Refusal::Cooldown { until }
        | Refusal::Exhausted { until }
        | Refusal::Locked { until }
        | Refusal::Paced { until } => require(world, *until >= world.now, || {
            format!("{id} is refused until the past: {refusal:?}")
        }),
        Refusal::QueueTimeout { .. } => {
            let early = exchange.joined + exchange.wait_max;
            let is_time = world.now >= early.min(exchange.deadline);
            require(world, is_time, || format!("{id} timed out before its time"));
        }
        Refusal::QueueFull | Refusal::Draining => {}
    }
}

/// A repeat is harmless, and within its bounds.
pub fn check_retry(world: &mut World, id: u64, outcome: &Outcome, kind: RepeatKind) {
    let judged = world.watch.judged.entry(id).or_default();
    let is_free = match outcome.class {
        Class::Throttled | Class::Exhausted => true,
        Class::Stale => !judged.used_once,
        _ => false,
    };
    judged.used_once |= matches!(kind, RepeatKind::Stale | RepeatKind::Once);
    judged.counted += u32::from(!is_free);
    let counted = judged.counted;
    let exchange = &world.exchanges[&id];
    let (processed, up) = (exchange.processed, exchange.up);
    let is_unsafe = exchange.needs.safety == Safety::Unsafe;
    require(world, processed == 0 || !is_unsafe, || {
        format!("{id} is unsafe, was sent, and is repeated after {outcome:?}")
    });
    let cfg = &world.ups[up].cfg;
    let retry = &cfg.routes[0].retry;
    let attempts_max = u32::from(retry.attempts_max.get());
    require(world, counted < attempts_max, || format!("{id} made {counted} attempts and goes on"));
    let seen = &world.watch.seen[up];
    let recent = |times: &[MonoTime], seconds| {
        let since = |at: &&MonoTime| world.now.since(**at) <= Duration::from_secs(seconds);
        times.iter().rev().take_while(since).count() as f64
    };
    let allowed =
        recent(&seen.firsts, 66) * retry.budget_ratio + f64::from(retry.budget_floor_per_minute);
    // The window moves in steps of six seconds, and a probe is not charged.
    let excused = seen.was_half_open;
    let retries = recent(&seen.retries, 53);
    require(world, retries <= allowed || excused, || {
        format!("{retries} retries, {allowed} are allowed")
    });
}

/// Every moment is charged to a wait, to an attempt or to the body, and no wait was too long.
pub fn check_account(world: &World, exchange: &Exchange) {
    let counted = exchange.waits.total() + exchange.attempts + exchange.streamed;
    let wall = world.now.since(exchange.joined);
    require(world, counted == wall, || {
        format!("{wall:?} passed, {counted:?} are accounted for: {exchange:?}")
    });
    let held = exchange.waits.total();
    require(world, held <= exchange.wait_max + world.watch.jumped, || {
        format!("it was held for {held:?}: {exchange:?}")
    });
}

/// Before time moves on: everybody is where they are counted, and nobody waits who could go.
pub fn check_rest(world: &mut World) {
    check_conservation(world);
    let waiting: Vec<u64> = world
        .exchanges
        .iter()
        .filter(|(_, ex)| matches!(ex.state, State::Waiting(_)))
        .map(|(id, _)| *id)
        .collect();
    for id in waiting {
        let Some(State::Waiting(before)) = world.exchanges.get(&id).map(|ex| &ex.state) else {
            continue;
        };
        let before = *before;
        let up = world.exchanges[&id].up;
        let closed_at = world.watch.seen[up].closed_at;
        let slowly = closed_at.is_some_and(|at| world.now.since(at) < SLOW_START);
        let answer = world.ask_again(id);
        match answer {
            Said::Wait(until) => require(world, until >= before || slowly, || {
                format!("{id} sleeps until {before:?}, but should ask at {until:?}")
            }),
            Said::Go => require(world, slowly, || format!("{id} waits, and could go")),
            // Whoever gets past a limit that moved by itself may meet something longer there.
            Said::Refuse(refusal) => {
                require(world, slowly, || format!("{id} waits, and should be refused: {refusal:?}"))
            }
        }
    }
    world.settle_down();
}

fn check_conservation(world: &mut World) {
    let mut queued = 0;
    for up in 0..world.ups.len() {
        let flying = flying(world, |ex| ex.up == up);
        let policy = &world.ups[up].policy;
        let (in_flight, in_line) = (policy.in_flight(), policy.queued());
        queued += in_line;
        require(world, in_flight == flying, || {
            format!("{in_flight} in flight by the policy of {up}, {flying} in truth")
        });
        let waiting = world.exchanges.values().filter(|ex| ex.up == up).count();
        let waiting = waiting - flying as usize;
        require(world, in_line <= waiting, || {
            format!("{in_line} in line at {up}, but {waiting} wait")
        });
    }
    for view in world.limits.view().iter().filter(|pool| !pool.is_process) {
        let with_key = with_key(world, &view.name);
        require(world, with_key == view.in_use, || {
            format!("{view:?}, but {with_key} with this key are in flight")
        });
    }
    require(world, world.limits.queued() as usize == queued, || {
        format!("{} queued in all, {queued} in lines", world.limits.queued())
    });
}

/// Nothing is left of anybody.
pub fn check_end(world: &mut World) {
    let left = world.exchanges.len();
    require(world, left == 0, || format!("{left} exchanges never ended"));
    for up in 0..world.ups.len() {
        let policy = &world.ups[up].policy;
        let (in_flight, queued) = (policy.in_flight(), policy.queued());
        require(world, in_flight == 0 && queued == 0, || {
            format!("{in_flight} in flight and {queued} in line are left")
        });
        let image = world.with(up, |policy, cx| policy.image(cx));
        let left = image.routes.iter().map(|(_, count)| count).sum::<u32>();
        require(world, left == 0, || format!("{left} left on routes"));
    }
    let pools = world.limits.view();
    let clean = pools.iter().all(|pool| pool.in_use == 0 && pool.waiting == 0);
    require(world, clean && world.limits.queued() == 0, || {
        format!("permits or members are left: {pools:?}")
    });
}

#[test]
fn waits_and_attempts_add_up_to_the_wall_time_of_every_exchange() {
    let mut accounts = 0;
    for seed in 0.. {
        let mut world = crate::history::world(seed);
        world.watch.strict = false;
        world.run();
        accounts += world.watch.accounts;
        if accounts >= 100_000 {
            return;
        }
        assert!(seed < 4_000, "too little happened: {accounts} exchanges");
    }
}
