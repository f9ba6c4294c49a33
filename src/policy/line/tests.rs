//! Who waits where, and what it costs them.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::policy::limits::PoolId;
use crate::policy::outcome::{Safety, WaitKind};

fn needs(route: u16) -> Needs {
    Needs {
        route: RouteId(route),
        bucket: BucketId::Route(RouteId(route)),
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
    line.raise(Place::Scope(BucketId::Route(RouteId(9)), CredentialId(0)));
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

fn of_flow(flow: u64, band: Band, route: u16) -> Needs {
    Needs { flow: FlowId(flow), band, ..needs(route) }
}

/// Parks whatever is ready at the place that is full, and serves so many from there: their flows.
fn served(line: &mut Line, now: MonoTime, count: usize) -> Vec<u64> {
    let mut flows = Vec::new();
    let full = obstacle(Place::House, None, WaitKind::Queue);
    let park = |line: &mut Line| {
        while let Some((id, _)) = line.next_ready() {
            line.park(now, id, full);
        }
    };
    park(line);
    for _ in 0..count {
        line.unpark_due(now);
        line.unpark_first(Place::House);
        let Some((id, needs)) = line.next_ready() else { break };
        flows.push(needs.flow.0);
        line.serve(now, id).unwrap();
        park(line);
    }
    flows
}

#[test]
fn one_flow_is_served_in_the_order_of_arrival_whatever_its_lanes() {
    let mut line = Line::default();
    for id in 1..=9 {
        line.enter(at(0), &needs(u16::try_from(id * 7 % 4).unwrap()), TicketId(id), at(60));
    }
    let full = obstacle(Place::House, None, WaitKind::Queue);
    while let Some((id, _)) = line.next_ready() {
        line.park(at(0), id, full);
    }
    for id in 1..=9 {
        assert!(line.unpark_first(Place::House));
        assert_eq!(line.next_ready().map(|(id, _)| id), Some(TicketId(id)));
        line.serve(at(0), TicketId(id)).unwrap();
        while let Some((id, _)) = line.next_ready() {
            line.park(at(0), id, full);
        }
    }
    assert!(line.is_empty());
}

#[test]
fn flows_take_turns_however_many_lanes_and_tickets_they_have() {
    let mut line = Line::default();
    for id in 1..=20 {
        let route = u16::try_from(id).unwrap();
        line.enter(at(0), &of_flow(1, Band::Default, route), TicketId(id), at(60));
    }
    for id in 21..=24 {
        line.enter(at(0), &of_flow(2, Band::Default, 1), TicketId(id), at(60));
    }
    assert_eq!(served(&mut line, at(0), 10), [1, 2, 1, 2, 1, 2, 1, 2, 1, 1]);
}

#[test]
fn who_leaves_without_a_turn_costs_its_flow_nothing() {
    let mut line = Line::default();
    for id in 1..=8 {
        line.enter(at(0), &of_flow(1 + id % 2, Band::Default, 1), TicketId(id), at(60));
    }
    for id in [2, 4] {
        line.leave(at(0), TicketId(id)).unwrap();
    }
    assert_eq!(served(&mut line, at(0), 6), [2, 1, 2, 1, 2, 2]);
}

#[test]
fn a_band_that_had_no_turn_for_thirty_seconds_counts_one_higher() {
    let mut line = Line::default();
    for id in 1..=40 {
        let band = if id % 2 == 0 { Band::Backfill } else { Band::Default };
        line.enter(at(0), &of_flow(id % 2, band, 1), TicketId(id), at(60));
    }
    // The backfill's flow is 0.
    assert_eq!(served(&mut line, at(0), 8), [1; 8]);
    assert_eq!(served(&mut line, at(29), 4), [1, 1, 1, 1]);
    assert_eq!(served(&mut line, at(61), 4), [0, 1, 1, 1]);
}

#[test]
fn each_lower_band_gets_one_turn_in_twenty_whichever_bands_are_there() {
    for bands in [
        &[Band::Default, Band::Backfill][..],
        &[Band::Critical, Band::Default, Band::Backfill],
        &Band::ALL,
    ] {
        let mut line = Line::default();
        let mut id = 0;
        for _ in 0..100 {
            for (flow, band) in (0..).zip(bands) {
                id += 1;
                line.enter(at(0), &of_flow(flow, *band, 1), TicketId(id), at(60));
            }
        }
        let flows = served(&mut line, at(0), 100);
        let turns = |flow: usize| flows.iter().filter(|it| **it == flow as u64).count();
        let low = bands.len() - 1;
        for flow in 1..=low {
            assert_eq!(turns(flow), 5, "{bands:?}: {flows:?}");
        }
        assert_eq!(turns(0), 100 - 5 * low, "{bands:?}");
    }
}

#[test]
fn a_band_that_comes_to_a_crowd_of_a_lower_one_has_its_share_from_the_first_turn() {
    let mut line = Line::default();
    for id in 1..=200 {
        line.enter(at(0), &of_flow(id, Band::Backfill, 1), TicketId(id), at(60));
    }
    served(&mut line, at(0), 50);
    for id in 201..=240 {
        line.enter(at(0), &of_flow(0, Band::Default, 1), TicketId(id), at(60));
    }
    let flows = served(&mut line, at(0), 40);
    let own = flows.iter().filter(|flow| **flow == 0).count();
    assert!(own >= 38 && flows[0] == 0, "{flows:?}");
}

#[test]
fn beyond_so_many_flows_the_others_share_and_none_is_forgotten_while_it_waits() {
    let mut line = Line::default();
    for id in 1..=2_000 {
        line.enter(at(0), &of_flow(id, Band::Default, 1), TicketId(id), at(60));
    }
    let flows = served(&mut line, at(0), 600);
    let own = flows.iter().filter(|flow| **flow <= 512).count();
    assert_eq!(own, 512, "each of the first had its turn");
    for id in line.all().collect::<Vec<_>>() {
        line.leave(at(1), id).unwrap();
    }
    assert!(line.is_empty());
    assert_eq!(line.queued(), []);
}

#[test]
fn of_a_full_line_the_newest_of_the_longest_flow_in_the_lowest_band_gives_way() {
    let mut line = Line::default();
    let waiting =
        [(1, Band::High), (2, Band::Low), (2, Band::Low), (3, Band::Low), (2, Band::High)];
    for (id, (flow, band)) in (1..).zip(waiting) {
        line.enter(at(0), &of_flow(flow, band, 1), TicketId(id), at(60));
    }
    let gives_way = |flow, band| line.gives_way_to(&of_flow(flow, band, 1));
    assert_eq!(gives_way(1, Band::High), Some(TicketId(3)));
    assert_eq!(gives_way(9, Band::Low), Some(TicketId(3)), "its flow is the shorter one");
    assert_eq!(gives_way(3, Band::Low), None, "its flow is as long");
    assert_eq!(gives_way(9, Band::Backfill), None, "nobody ranks behind it");
    assert_eq!(Line::default().gives_way_to(&needs(0)), None);
}
