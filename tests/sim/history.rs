//! One seed, one world: settings, upstreams, clients and cruelties drawn at random.

use std::num::NonZeroU8;
use std::time::Duration;

use forbear::policy::breaker::Force;
use forbear::policy::line::{Band, CredentialId, FlowId};
use forbear::policy::outcome::Safety;
use forbear::policy::retry::Replay;
use forbear::policy::settings::{
    Backoff, BackoffFamily, BreakerSettings, KeySettings, LimitSettings, Mode, Pacing,
    RetrySettings, RouteSettings, UpstreamSettings,
};
use forbear::policy::time::MonoTime;

use forbear::simulate::model::{Hints, Limiter, Model, Outage, between};
use forbear::simulate::world::{Client, Request};

use crate::world::{Cruelty, World, add_cruelty, add_upstream, new};

const ROUTES: [&str; 3] = ["default", "search", "write"];

/// What requests get that are let through.
const STATUSES: [u16; 6] = [200, 200, 200, 200, 204, 404];

/// The defaults of the product.
pub fn breaker() -> BreakerSettings {
    BreakerSettings {
        consecutive_failures: 5,
        failure_rate: 0.5,
        window: Duration::from_secs(60),
        samples_min: 10,
        open_for: Duration::from_secs(30),
        open_for_max: Duration::from_secs(600),
        successes_to_close: 2,
        slow_after: None,
        slow_rate: 0.8,
    }
}

/// The defaults of the product.
pub fn route(name: &str) -> RouteSettings {
    RouteSettings {
        name: name.into(),
        in_flight_max: None,
        max_wait: Duration::from_secs(50),
        retry: RetrySettings {
            attempts_max: NonZeroU8::new(4).expect("4 is not 0"),
            throttled_counts: false,
            unsafe_503: false,
            backoff: Backoff {
                family: BackoffFamily::FullJitter,
                base: Duration::from_millis(500),
                max: Duration::from_secs(30),
            },
            budget_ratio: 0.2,
            budget_floor_per_minute: 10,
        },
        breaker: None,
        mode: Mode::Enforce,
    }
}

/// The defaults of the product.
pub fn upstream() -> UpstreamSettings {
    UpstreamSettings {
        in_flight_max: 16,
        queue_max: 1000,
        breaker: breaker(),
        routes: vec![route("default")],
        buckets: Vec::new(),
        quotas: Vec::new(),
        pacing: Pacing::Observe,
    }
}

/// The defaults of the product.
pub fn limits() -> LimitSettings {
    LimitSettings {
        in_flight_max: 128,
        queue_max: 4000,
        replay_memory_max: 64 << 20,
        keys: Vec::new(),
    }
}

/// A random history.
pub fn world(seed: u64) -> World {
    let mut rng = fastrand::Rng::with_seed(seed ^ 0x5eed);
    let mut world = new(seed, &random_limits(&mut rng));
    if rng.u8(0..5) == 0 {
        // Then a grant may lie about, and a moment of rest proves nothing.
        (world.watch.sluggish, world.watch.strict) = (true, false);
    }
    let ups = rng.usize(1..4);
    for _ in 0..ups {
        let cfg = random_upstream(&mut rng);
        let model = random_model(&mut rng);
        add_upstream(&mut world, cfg, model);
    }
    for _ in 0..rng.usize(1..24) {
        let client = random_client(&mut rng, ups);
        let from = Duration::from_secs(20).mul_f64(rng.f64().powi(3));
        world.add_client(client, from);
    }
    for _ in 0..rng.usize(0..5) {
        let cruelty = random_cruelty(&mut rng, ups);
        add_cruelty(&mut world, cruelty, Duration::from_secs(60).mul_f64(rng.f64()));
    }
    if rng.u8(0..20) == 0 {
        let last = Cruelty::Drain(rng.usize(0..ups));
        add_cruelty(&mut world, last, Duration::from_secs(40));
    }
    world
}

fn random_limits(rng: &mut fastrand::Rng) -> LimitSettings {
    let key = |pattern: &str, in_flight_max| KeySettings {
        pattern: pattern.into(),
        in_flight_max,
        ordered: false,
    };
    LimitSettings {
        in_flight_max: [1, 3, 8, 128][rng.usize(0..4)],
        queue_max: [0, 5, 4000, 4000][rng.usize(0..4)],
        replay_memory_max: 0,
        keys: vec![
            key("ingestion", rng.u32(1..4)),
            key("tenant:*", rng.u32(1..3)),
            KeySettings { pattern: "ledger".into(), in_flight_max: 1, ordered: true },
        ],
    }
}

fn random_upstream(rng: &mut fastrand::Rng) -> UpstreamSettings {
    let random_breaker = |rng: &mut fastrand::Rng| BreakerSettings {
        open_for: Duration::from_secs(rng.u64(1..30)),
        slow_after: rng.bool().then_some(Duration::from_secs(2)),
        ..breaker()
    };
    let own = random_breaker(rng);
    let mut routes = Vec::new();
    for name in &ROUTES[..rng.usize(1..=3)] {
        let mut route = route(name);
        route.in_flight_max = rng.bool().then(|| rng.u32(1..6));
        route.breaker = (rng.u8(0..3) == 0).then(|| random_breaker(rng));
        route.retry.throttled_counts = rng.u8(0..4) == 0;
        routes.push(route);
    }
    // The checks know one bound for all routes.
    let counts = routes[0].retry.throttled_counts;
    for route in &mut routes {
        route.retry.throttled_counts = counts;
    }
    UpstreamSettings {
        in_flight_max: [1, 2, 5, 16][rng.usize(0..4)],
        queue_max: [0, 3, 1000, 1000][rng.usize(0..4)],
        breaker: own,
        routes,
        buckets: Vec::new(),
        quotas: Vec::new(),
        pacing: Pacing::Observe,
    }
}

fn random_model(rng: &mut fastrand::Rng) -> Model {
    let max = rng.u32(1..30);
    let window = Duration::from_millis(rng.u64(200..15_000));
    let limiter = match rng.u8(0..6) {
        0 => Limiter::Open,
        1 => Limiter::Fixed { max, window },
        2 => Limiter::Sliding { max, window },
        3 => Limiter::Bucket { per_second: rng.f64() * 20.0 + 0.2, burst: f64::from(max) },
        4 => Limiter::Concurrency { max: rng.u32(1..6) },
        _ => Limiter::Punishing { max, window, penalty: Duration::from_millis(rng.u64(1..2_000)) },
    };
    let hints = [Hints::Seconds, Hints::Millis, Hints::None, Hints::Quota][rng.usize(0..4)];
    let mut model = Model::new(limiter, hints, Duration::from_millis(rng.u64(1..800)));
    if rng.bool() {
        model.body = (Duration::ZERO, Duration::from_secs(rng.u64(0..10)));
    }
    model.statuses = STATUSES.to_vec();
    model.odd_failure = [0, 0, 30, 8][rng.usize(0..4)];
    for _ in 0..rng.usize(0..3) {
        let from = MonoTime::ZERO + Duration::from_secs(30).mul_f64(rng.f64());
        let to = from + Duration::from_secs(20).mul_f64(rng.f64());
        let kinds =
            [Outage::Error, Outage::Unavailable, Outage::Refused, Outage::Reset, Outage::Silent];
        model.outages.push((from, to, kinds[rng.usize(0..5)]));
    }
    model
}

fn random_client(rng: &mut fastrand::Rng, ups: usize) -> Client {
    let mut keys = Vec::new();
    if rng.u8(0..3) == 0 {
        keys.push("ingestion".to_owned());
    }
    if rng.u8(0..3) == 0 {
        keys.push(format!("tenant:{}", rng.u8(0..4)));
    }
    if rng.u8(0..6) == 0 {
        keys.push("ledger".to_owned());
    }
    let patience = (Duration::from_millis(50), Duration::from_secs(40));
    let request = Request {
        up: rng.usize(0..ups),
        // Clamped to what the upstream has when it asks.
        route: rng.usize(0..3),
        credential: CredentialId(rng.u64(0..3)),
        safety: [Safety::Safe, Safety::Idempotent, Safety::Unsafe][rng.usize(0..3)],
        keys: keys.into(),
        flow: FlowId(rng.u64(0..4)),
        band: Band::ALL[rng.usize(0..5)],
        cost: [1, 1, 1, 20][rng.usize(0..4)],
        replay: [Replay::Ready, Replay::Ready, Replay::Impossible][rng.usize(0..3)],
        wait_max: [
            Duration::ZERO,
            Duration::from_secs(2),
            Duration::from_secs(50),
            Duration::from_secs(50),
        ][rng.usize(0..4)],
        patience: (rng.u8(0..3) == 0).then(|| between(patience, rng)),
        leaves: [0, 0, 10, 2][rng.usize(0..4)],
        ..Request::new(0, Duration::ZERO)
    };
    Client { request, think: Duration::from_millis(rng.u64(0..2_000)), requests: rng.u32(1..40) }
}

fn random_cruelty(rng: &mut fastrand::Rng, ups: usize) -> Cruelty {
    let up = rng.usize(0..ups);
    match rng.u8(0..7) {
        0 => Cruelty::Limits(random_limits(rng)),
        1 => Cruelty::Upstream(up, random_upstream(rng)),
        2 => {
            let to = [Force::Open, Force::Closed, Force::Auto][rng.usize(0..3)];
            let route = [None, Some("search")][rng.usize(0..2)];
            Cruelty::Force(up, route, to, Duration::from_secs(rng.u64(1..20)))
        }
        3 => Cruelty::ClearCooldowns(up),
        4 => Cruelty::Jump(Duration::from_secs(60).mul_f64(rng.f64().powi(4))),
        _ => Cruelty::WakeEverybody(up),
    }
}
