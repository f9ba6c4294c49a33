//! Those who wait: who goes next, who is told to wait until when, and who has waited too long.

use super::ticket::{Rest, timed_out, too_late};
use super::{Answer, Context, Event, Refusal, Ticket, UpstreamPolicy};
use crate::policy::line::{Needs, Place, TicketId};
use crate::policy::outcome::{WaitKind, Waits};
use crate::policy::time::MonoTime;

impl UpstreamPolicy {
    /// Lets go whoever can, in the order of turns.
    pub(super) fn pump(&mut self, cx: &mut Context<'_>) {
        // Whom the same head gave way to last, in vain: it does so once, or this would never end.
        let mut in_vain = None;
        while !self.line.is_empty() {
            if self.in_flight < self.house(cx) {
                // Whose turn comes first goes first, whatever made the others ready.
                self.line.unpark_older(Place::House);
            }
            let Some((head, needs)) = self.line.next_ready() else {
                break;
            };
            if let Some(barrier) = self.yields_to(cx, head, &needs)
                && in_vain.replace((head, barrier)) != Some((head, barrier))
            {
                self.line.unpark_first(barrier);
                continue;
            }
            match self.start(cx, head, &needs) {
                Ok(mut grant) => {
                    in_vain = None;
                    if let Some(waits) = self.line.serve(cx.now, head) {
                        cx.limits.leave_queue();
                        grant.waited = waits;
                    }
                    self.granted.insert(head, grant);
                    self.events.push(Event::Wake(head));
                }
                Err(obstacle) => {
                    let impatient = self.line.park(cx.now, head, obstacle);
                    self.events.extend(impatient.into_iter().map(Event::Wake));
                }
            }
        }
    }

    /// Whether there is room in line for one more with these needs. Where there is none, the newest
    /// of the longest flow in the lowest band gives its place up, if that is not the newcomer.
    pub(super) fn make_room(&mut self, cx: &mut Context<'_>, needs: &Needs) -> bool {
        let is_full = self.line.len() >= usize::try_from(cx.cfg.queue_max).unwrap_or(usize::MAX);
        if !is_full && cx.limits.enter_queue().is_ok() {
            return true;
        }
        let Some(id) = self.line.gives_way_to(needs) else { return false };
        let Some(waits) = self.take_out(cx, id) else { return false };
        self.evicted.insert(id, (waits, cx.now));
        self.events.push(Event::Wake(id));
        cx.limits.reenter_queue();
        true
    }

    /// Whether this ticket had to give its place up; if so, its waits are charged.
    pub(super) fn was_evicted(&mut self, now: MonoTime, ticket: &mut Ticket) -> bool {
        if self.evicted.is_empty() {
            return false;
        }
        let evicted = self.evicted.remove(&ticket.id);
        if let Some((waits, at)) = &evicted {
            ticket.waited.add(waits);
            ticket.waited.charge(WaitKind::Queue, now.since(*at));
        }
        evicted.is_some()
    }

    pub(super) fn reenter(&mut self, cx: &mut Context<'_>, ticket: &Ticket) {
        cx.limits.reenter_queue();
        self.line.enter(cx.now, &ticket.needs, ticket.id, ticket.give_up_at());
    }

    pub(super) fn end_rest(&mut self, now: MonoTime, ticket: &mut Ticket, rest: Rest) {
        self.resting.remove(&ticket.id);
        ticket.resting = None;
        ticket.waited.charge(WaitKind::Backoff, now.since(rest.since));
    }

    /// False if it did not stand there.
    pub(super) fn leave_line(&mut self, cx: &mut Context<'_>, ticket: &mut Ticket) -> bool {
        let waits = self.take_out(cx, ticket.id);
        if let Some(waits) = &waits {
            ticket.waited.add(waits);
        }
        waits.is_some()
    }

    pub(super) fn take_out(&mut self, cx: &mut Context<'_>, id: TicketId) -> Option<Waits> {
        let waits = self.line.leave(cx.now, id)?;
        cx.limits.leave_queue();
        Some(waits)
    }

    pub(super) fn wait_or_refuse(&mut self, cx: &mut Context<'_>, ticket: &mut Ticket) -> Answer {
        let give_up_at = ticket.give_up_at();
        if self.draining {
            self.leave_line(cx, ticket);
            return Answer::Refuse(Refusal::Draining);
        }
        let Some((obstacle, minds_clock)) = self.line.obstacle(ticket.id) else {
            debug_assert!(false, "whoever asks and has no grant stands in line");
            return Answer::Wait { until: give_up_at };
        };
        let refusal = too_late(&obstacle, give_up_at)
            .or_else(|| (cx.now >= give_up_at).then(|| timed_out(&obstacle, cx.now)));
        if let Some(refusal) = refusal {
            self.leave_line(cx, ticket);
            self.pump(cx);
            self.forget_turns(cx);
            return Answer::Refuse(refusal);
        }
        // Only one at a place minds its clock; the others would wake for nothing.
        let until = obstacle.until.filter(|_| minds_clock).unwrap_or(MonoTime::MAX);
        Answer::Wait { until: until.min(give_up_at) }
    }

    /// Takes this upstream off the lists of shared limits that it no longer waits for.
    pub(super) fn forget_turns(&mut self, cx: &mut Context<'_>) {
        let line = &self.line;
        self.awaited.retain(|pool| {
            let waits = line.is_parked_at(Place::Pool(*pool));
            if !waits {
                cx.limits.withdraw(self.id, *pool);
            }
            waits
        });
    }
}
