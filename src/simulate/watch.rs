//! Who looks on while a history passes, and what they are told.
//!
//! The world calls at every step, so that `forbear simulate` counts and the tests examine, and
//! neither has a driver of its own.

use std::time::Duration;

use super::world::{Exchange, World};
use crate::policy::classify::Failure;
use crate::policy::outcome::{Class, Outcome};
use crate::policy::retry::RepeatKind;
use crate::policy::time::MonoTime;
use crate::policy::upstream::{Event, Refusal};

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The client got an answer of the API that meant this.
    Answered(Class),
    /// There was none, and forbear refused.
    Refused(Refusal),
    /// There was none, for this reason.
    Failed(Failure),
    /// The client left.
    Left,
}

/// Who looks on: counts, examines, or lets things happen that no client does.
pub trait Watch: Sized {
    /// A line of the history, if somebody keeps one.
    fn note(&mut self, _at: MonoTime, _line: impl FnOnce() -> String) {}
    /// What was planned with [`World::plan_other`] is due.
    fn happens(_world: &mut World<Self>, _number: usize) {}
    /// Before an event: time moves on to this moment.
    fn moves_on(_world: &mut World<Self>, _to: MonoTime) {}
    /// An attempt starts, after it waited for so long since the last one.
    fn goes(_world: &mut World<Self>, _id: u64, _waited: Duration) {}
    /// It was told to wait.
    fn waits(_world: &mut World<Self>, _id: u64, _until: MonoTime) {}
    /// An attempt ended.
    fn answered(_world: &mut World<Self>, _id: u64, _outcome: &Outcome, _status: Option<u16>) {}
    /// It is going to be repeated.
    fn repeats(_world: &mut World<Self>, _id: u64, _outcome: &Outcome, _kind: RepeatKind) {}
    /// It was in line and is refused.
    fn refused(_world: &mut World<Self>, _id: u64, _refusal: &Refusal) {}
    /// It is over.
    fn ended(_world: &mut World<Self>, _exchange: &Exchange, _end: End) {}
    /// It was not even let into the line.
    fn turned_away(_world: &mut World<Self>, _up: usize, _refusal: &Refusal) {}
    /// The policy of an upstream says what changed.
    fn event(_world: &mut World<Self>, _up: usize, _event: &Event) {}
    /// How late a woken exchange is; `None` for at once.
    fn late(_world: &mut World<Self>) -> Option<Duration> {
        None
    }
    /// Wake-ups and turns never end.
    fn stuck(_world: &mut World<Self>) {}
    /// Nothing is left to happen.
    fn over(_world: &mut World<Self>) {}
}
