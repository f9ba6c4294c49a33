//! Who gets a permit, and when.

use super::*;
use crate::policy::settings::KeySettings;

fn limits(in_flight_max: u32, keys: &[(&str, u32)]) -> Limits {
    Limits::new(&LimitSettings {
        in_flight_max,
        queue_max: 10,
        replay_memory_max: 0,
        keys: keys
            .iter()
            .map(|(pattern, max)| KeySettings {
                pattern: (*pattern).into(),
                in_flight_max: *max,
                ordered: false,
            })
            .collect(),
    })
}

const A: UpstreamId = UpstreamId(1);
const B: UpstreamId = UpstreamId(2);

#[test]
fn permits_are_taken_together_or_not_at_all() {
    let mut limits = limits(10, &[("x", 1), ("y", 1)]);
    let (x, y) = (limits.join("x").unwrap(), limits.join("y").unwrap());
    assert_eq!(limits.try_take(A, &[x]), Ok(()));
    assert_eq!(limits.try_take(B, &[y, x]), Err(x));
    assert_eq!(limits.try_take(A, &[y]), Ok(()), "nothing of y was kept by the failed take");
}

#[test]
fn a_freed_permit_goes_to_the_upstream_that_waited_first() {
    let mut limits = limits(1, &[]);
    assert_eq!(limits.try_take(A, &[]), Ok(()));
    assert!(limits.try_take(B, &[]).is_err());
    limits.give_back(&[]);
    assert_eq!(limits.take_turns(), [B]);
    assert!(limits.try_take(A, &[]).is_err(), "a newcomer does not overtake");
    assert_eq!(limits.try_take(B, &[]), Ok(()));
}

#[test]
fn a_waiter_that_withdraws_passes_its_turn_on() {
    let mut limits = limits(1, &[]);
    limits.try_take(A, &[]).unwrap();
    let process = limits.try_take(B, &[]).unwrap_err();
    limits.try_take(A, &[]).unwrap_err();
    limits.give_back(&[]);
    limits.take_turns();
    limits.withdraw(B, process);
    assert_eq!(limits.take_turns(), [A]);
}

#[test]
fn each_value_of_a_pattern_has_a_pool_of_its_own_and_the_longest_pattern_wins() {
    let mut limits = limits(10, &[("tenant:*", 1), ("tenant:vip:*", 2)]);
    let a = limits.join("tenant:a").unwrap();
    let b = limits.join("tenant:b").unwrap();
    assert_ne!(a, b);
    assert_eq!(limits.try_take(A, &[a]), Ok(()));
    assert_eq!(limits.try_take(A, &[b]), Ok(()));
    assert_eq!(limits.try_take(A, &[a]), Err(a));
    let vip = limits.join("tenant:vip:1").unwrap();
    limits.try_take(B, &[vip]).unwrap();
    assert_eq!(limits.try_take(B, &[vip]), Ok(()));
    assert_eq!(limits.join("other"), None);
}

#[test]
fn the_table_of_keys_is_bounded_whatever_callers_send() {
    let mut limits = limits(10, &[("t:*", 1)]);
    for n in 0..2 * POOLS_MAX {
        let id = limits.join(&format!("t:{n}")).unwrap();
        limits.leave(id);
    }
    assert!(limits.view().len() <= POOLS_MAX + 2);
}

#[test]
fn a_new_value_takes_the_place_of_one_that_nobody_uses() {
    let mut limits = limits(10, &[("t:*", 1)]);
    let used = limits.join("t:used").unwrap();
    limits.try_take(A, &[used]).unwrap();
    limits.leave(used);
    for n in 0..2 * POOLS_MAX {
        let id = limits.join(&format!("t:{n}")).unwrap();
        limits.leave(id);
    }
    assert_eq!(limits.join("t:used"), Some(used), "its permit is still out");
    let last = limits.join("t:last").unwrap();
    assert_eq!(limits.name(last).as_deref(), Some("t:last"), "there was room for it");
}

#[test]
fn a_raised_limit_gives_turns_at_once() {
    let mut limits = limits(1, &[]);
    limits.try_take(A, &[]).unwrap();
    limits.try_take(B, &[]).unwrap_err();
    limits.configure(&LimitSettings {
        in_flight_max: 2,
        queue_max: 10,
        replay_memory_max: 0,
        keys: Vec::new(),
    });
    assert_eq!(limits.take_turns(), [B]);
}

#[test]
fn a_pool_in_strict_order_admits_the_lowest_number_and_calls_the_next_when_it_leaves() {
    let mut limits = limits(10, &[("x", 1)]);
    let x = limits.join("x").unwrap();
    assert_eq!(limits.number(x), None, "it is not ordered yet");
    let key = KeySettings { pattern: "x".into(), in_flight_max: 1, ordered: true };
    limits.configure(&LimitSettings {
        in_flight_max: 10,
        queue_max: 10,
        replay_memory_max: 0,
        keys: vec![key],
    });
    let [first, second] = [(); 2].map(|()| [(x, limits.number(x).unwrap())]);
    assert_eq!(
        limits.try_take_as(B, &[x], Some(&second)),
        Err(x),
        "it is free, and not for this one"
    );
    assert_eq!(limits.take_turns(), [], "the first has not come yet");
    assert_eq!(limits.try_take_as(A, &[x], Some(&first)), Ok(()));
    limits.give_back(&[x]);
    assert_eq!(limits.take_turns(), [], "it waits between two attempts");
    assert_eq!(limits.try_take_as(B, &[x], Some(&second)), Err(x));
    limits.pass_on(x, first[0].1);
    assert_eq!(limits.take_turns(), [B]);
    assert_eq!(limits.try_take_as(B, &[x], Some(&second)), Ok(()));
}
