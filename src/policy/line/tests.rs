//! Who waits where, and what it costs them.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::policy::limits::PoolId;
use crate::policy::outcome::{Safety, WaitKind};

fn needs(route: u16) -> Needs {
    Needs {
        route: RouteId(route),
        credential: CredentialId(0),
        safety: Safety::Safe,
        pools: Arc::from([]),
        numbers: None,
        flow: FlowId::default(),
        band: Band::default(),
        cost: 1,
    }
}

fn at(seconds: u64) -> MonoTime {
    MonoTime::ZERO + Duration::from_secs(seconds)
}

fn obstacle(place: Place, until: Option<u64>, kind: WaitKind) -> Obstacle {
    Obstacle {
        place,
        until: until.map(at),
        kind,
        why: if kind == WaitKind::Queue { Why::Capacity } else { Why::Cooldown },
    }
}

#[test]
fn each_second_is_charged_to_what_was_in_the_way_then() {
    let mut line = Line::default();
    let id = TicketId(1);
    line.enter(at(0), &needs(0), id, MonoTime::MAX);
    line.park(at(0), id, obstacle(Place::House, None, WaitKind::Queue));
    line.unpark_first(Place::House);
    let cooldown = obstacle(Place::Whole, Some(9), WaitKind::Cooldown);
    line.park(at(3), id, cooldown);
    let waits = line.leave(at(7), id).unwrap();
    assert_eq!(waits.of(WaitKind::Queue), Duration::from_secs(3));
    assert_eq!(waits.of(WaitKind::Cooldown), Duration::from_secs(4));
    assert_eq!(waits.total(), Duration::from_secs(7));
}

#[test]
fn a_new_head_takes_over_the_place_and_the_clock_of_the_old_one() {
    let mut line = Line::default();
    for id in [1, 2] {
        line.enter(at(0), &needs(0), TicketId(id), MonoTime::MAX);
    }
    let cooldown = obstacle(Place::Whole, Some(9), WaitKind::Cooldown);
    assert_eq!(line.park(at(0), TicketId(1), cooldown), [TicketId(1)]);
    line.leave(at(1), TicketId(1)).unwrap();
    assert_eq!(line.next_ready().map(|(id, _)| id), Some(TicketId(2)));
    assert_eq!(line.park(at(1), TicketId(2), cooldown), [TicketId(2)]);
    assert_eq!(line.obstacle(TicketId(2)), Some((cooldown, true)));
    line.unpark_due(at(8));
    assert_eq!(line.next_ready(), None);
    line.unpark_due(at(9));
    assert_eq!(line.next_ready().map(|(id, _)| id), Some(TicketId(2)));
}

#[test]
fn of_all_who_wait_at_a_place_one_minds_the_clock_and_all_know_when_it_moves() {
    let mut line = Line::default();
    for (id, give_up_at) in [(1, 60), (2, 15), (3, 60)] {
        let route = u16::try_from(id).unwrap();
        line.enter(at(0), &needs(route), TicketId(id), at(give_up_at));
        line.park(at(0), TicketId(id), obstacle(Place::Whole, Some(9), WaitKind::Cooldown));
    }
    let minds = |line: &Line| [1, 2, 3].map(|id| line.obstacle(TicketId(id)).unwrap().1);
    assert_eq!(minds(&line), [true, false, false]);

    line.unpark_due(at(9));
    assert_eq!(line.next_ready().map(|(id, _)| id), Some(TicketId(1)));
    let later = obstacle(Place::Whole, Some(20), WaitKind::Pacing);
    assert_eq!(line.park(at(9), TicketId(1), later), [TicketId(1), TicketId(2)]);
    assert_eq!(line.next_ready(), None, "one look was enough");
    assert_eq!(line.obstacle(TicketId(3)), Some((later, false)));

    line.unpark_first(Place::Whole);
    line.leave(at(12), TicketId(1)).unwrap();
    assert_eq!(line.next_ready().map(|(id, _)| id), Some(TicketId(2)), "it went, so the next");
    let waits = line.leave(at(12), TicketId(3)).unwrap();
    assert_eq!(waits.of(WaitKind::Cooldown), Duration::from_secs(9));
    assert_eq!(waits.of(WaitKind::Pacing), Duration::from_secs(3));
}

#[test]
fn a_raised_barrier_is_looked_at_by_those_who_had_passed_it_and_by_no_others() {
    let mut line = Line::default();
    let places = [Place::House, Place::Whole, Place::House, Place::Pool(PoolId::default())];
    for (id, place) in (1..).zip(places) {
        let route = if id == 3 { 9 } else { u16::try_from(id).unwrap() };
        line.enter(at(0), &needs(route), TicketId(id), MonoTime::MAX);
        line.park(at(0), TicketId(id), obstacle(place, None, WaitKind::Queue));
    }
    line.raise(Place::Scope(RouteId(9), CredentialId(0)));
    assert_eq!(line.next_ready().map(|(id, _)| id), Some(TicketId(3)));
    line.leave(at(0), TicketId(3)).unwrap();
    assert_eq!(line.next_ready(), None);
    line.raise(Place::Credential(CredentialId(0)));
    for expected in [1, 4] {
        assert_eq!(line.next_ready().map(|(id, _)| id), Some(TicketId(expected)));
        line.leave(at(0), TicketId(expected)).unwrap();
    }
    assert_eq!(line.next_ready(), None, "what holds the rest is met first");
}

#[test]
fn whoever_cannot_wait_that_long_is_told_at_once() {
    let mut line = Line::default();
    line.enter(at(0), &needs(0), TicketId(1), at(60));
    line.enter(at(0), &needs(0), TicketId(2), at(5));
    line.enter(at(0), &needs(0), TicketId(3), at(60));
    let cooldown = obstacle(Place::Whole, Some(9), WaitKind::Cooldown);
    let told = line.park(at(0), TicketId(1), cooldown);
    assert_eq!(told, [TicketId(1), TicketId(2)]);
}

#[test]
fn a_call_that_finds_another_obstacle_is_handed_on() {
    let mut line = Line::default();
    let route = Place::Route(RouteId(0));
    for (id, route_of) in [(1, 0), (2, 1)] {
        line.enter(at(0), &needs(route_of), TicketId(id), MonoTime::MAX);
        let full = obstacle(route, None, WaitKind::Queue);
        line.park(at(0), TicketId(id), full);
    }
    line.unpark_first(route);
    line.park(at(1), TicketId(1), obstacle(Place::House, None, WaitKind::Queue));
    assert_eq!(line.next_ready().map(|(id, _)| id), Some(TicketId(2)));
}
