//! Who waits where, and what it costs them.

use std::time::Duration;

use super::*;

fn needs(route: u16) -> Needs {
    Needs {
        route: RouteId(route),
        credential: CredentialId(0),
        safety: Safety::Safe,
        pools: Arc::from([]),
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
    let cooldown = obstacle(Place::Clock, Some(9), WaitKind::Cooldown);
    line.park(at(3), id, cooldown);
    let waits = line.leave(at(7), id).unwrap().waits;
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
    let cooldown = obstacle(Place::Clock, Some(9), WaitKind::Cooldown);
    line.park(at(0), TicketId(1), cooldown);
    let left = line.leave(at(1), TicketId(1)).unwrap();
    assert_eq!(left.new_head, Some(TicketId(2)));
    line.unpark_due(at(8));
    assert_eq!(line.next_ready(), None);
    line.unpark_due(at(9));
    assert_eq!(line.next_ready().map(|(id, _)| id), Some(TicketId(2)));
}

#[test]
fn whoever_cannot_wait_that_long_is_told_at_once() {
    let mut line = Line::default();
    line.enter(at(0), &needs(0), TicketId(1), at(60));
    line.enter(at(0), &needs(0), TicketId(2), at(5));
    line.enter(at(0), &needs(0), TicketId(3), at(60));
    let cooldown = obstacle(Place::Clock, Some(9), WaitKind::Cooldown);
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
