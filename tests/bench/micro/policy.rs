//! What the policy's part of one exchange costs: join, ask, settle, quit, release, and its keys.

use std::time::Duration;

use forbear::policy::limits::{Limits, UpstreamId};
use forbear::policy::settings::KeySettings;

use super::harness::{Case, Pass};
use super::world::{World, needs, no_limits, served, served_of, throttled};

/// Upstreams that have traffic at the same time, however many are configured.
const BUSY: usize = 16;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "policy/upstreams",
        what: "an exchange through one of 16 busy upstreams, of so many",
        sizes: &[1, 10, 100, 1_000, 10_000],
        setup: |size| upstreams(size, (size / BUSY).max(1)),
    },
    Case {
        name: "policy/upstreams-cold",
        what: "an exchange through each of so many upstreams in turn",
        sizes: &[1, 10, 100, 1_000, 10_000],
        setup: |size| upstreams(size, 1),
    },
    Case {
        name: "policy/keys-declared",
        what: "an exchange with one of so many declared keys",
        sizes: &[1, 100, 10_000, 100_000],
        setup: |size| keys(declared(size), size, "key-"),
    },
    Case {
        name: "policy/keys-by-pattern",
        what: "an exchange with one of so many values of `tenant:*`",
        sizes: &[1, 100, 10_000, 100_000],
        setup: |size| keys(vec![key("tenant:*")], size, "tenant:"),
    },
    Case {
        name: "policy/keys-undeclared",
        what: "an exchange with a key that none of so many declarations covers",
        sizes: &[1, 100, 10_000, 100_000],
        setup: |size| keys(declared(size), size, "stranger-"),
    },
    Case {
        name: "policy/scopes",
        what: "an exchange in one of so many scopes that learned a quota",
        sizes: &[1, 10, 100, 1_000, 10_000],
        setup: scopes,
    },
    Case {
        name: "policy/scopes-refused",
        what: "an exchange that is refused beside so many scopes",
        sizes: &[1, 10, 100, 1_000],
        setup: refused,
    },
    Case {
        name: "policy/turns",
        what: "a permit of the process goes from one to the next of so many upstreams that wait",
        sizes: &[1, 10, 100, 1_000, 10_000],
        setup: turns,
    },
    Case {
        name: "policy/scopes-full",
        what: "an exchange of a stranger, while so many scopes pause",
        sizes: &[1, 10, 100, 1_000, 1_024],
        setup: strangers,
    },
];

fn upstreams(size: usize, step: usize) -> Pass {
    let mut world = World::new(size, &no_limits(), |_| {});
    let mut at = 0;
    let needs = needs(1, 7, &[]);
    Box::new(move || {
        world.exchange(at, needs.clone(), served());
        at = (at + step) % size;
    })
}

fn key(pattern: &str) -> KeySettings {
    KeySettings { pattern: pattern.into(), in_flight_max: 4, ordered: false }
}

fn declared(count: usize) -> Vec<KeySettings> {
    (0..count).map(|n| key(&format!("key-{n}"))).collect()
}

/// Walks through `size` names in steps that are prime to it, so that none is lately used.
fn keys(declared: Vec<KeySettings>, size: usize, prefix: &'static str) -> Pass {
    let mut limits = no_limits();
    limits.keys = declared;
    let mut world = World::new(1, &limits, |_| {});
    let names: Vec<String> = (0..size).map(|n| format!("{prefix}{n}")).collect();
    let mut at = 0;
    Box::new(move || {
        let pool = world.limits.join(&names[at]);
        world.exchange(0, needs(1, 7, pool.as_slice()), served());
        if let Some(pool) = pool {
            world.limits.leave(pool);
        }
        at = (at + 7_919) % size;
    })
}

fn scopes(size: usize) -> Pass {
    let mut world = World::new(1, &no_limits(), |_| {});
    let credential = |at: usize| 1 + 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(at as u64 / 2);
    let mut at = 0;
    let mut pass = move || {
        world.exchange(0, needs(at % 2, credential(at), &[]), served_of(4_000));
        at = (at + 1) % size;
    };
    for _ in 0..size {
        pass();
    }
    Box::new(pass)
}

fn refused(size: usize) -> Pass {
    let mut world = World::new(1, &no_limits(), |_| {});
    for credential in 0..size as u64 {
        world.exchange(0, needs(1, 1 + credential, &[]), served_of(4_000));
    }
    Box::new(move || {
        // Long enough that neither the pause nor what it taught is still there.
        world.now = world.now + Duration::from_secs(3_600);
        world.exchange(0, needs(1, 1, &[]), throttled(Duration::from_secs(1)));
    })
}

fn strangers(size: usize) -> Pass {
    let mut world = World::new(1, &no_limits(), |_| {});
    for credential in 0..size as u64 {
        world.exchange(0, needs(1, 10 + credential, &[]), throttled(Duration::from_secs(86_400)));
    }
    Box::new(move || world.exchange(0, needs(0, 1, &[]), served()))
}

fn turns(size: usize) -> Pass {
    let mut settings = no_limits();
    settings.in_flight_max = 1;
    let mut limits = Limits::new(&settings);
    for id in 0..=u32::try_from(size).unwrap_or(0) {
        // The first has the permit, the others wait for it.
        let _ = limits.try_take(UpstreamId(id), &[]);
    }
    Box::new(move || {
        limits.give_back(&[]);
        for id in limits.take_turns() {
            limits.try_take(id, &[]).expect("it is its turn");
            limits.try_take(id, &[]).expect_err("there is one permit");
        }
    })
}
