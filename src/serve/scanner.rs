//! Follows the messages of one HTTP/1.1 connection from head to body to the next head.
//!
//! Pure: it is shown bytes and says how many of them may pass. A violation stops it for good, because
//! behind one nobody can know where the next message begins.

use super::Violation;
use super::chunked::{Chunked, End};
use super::connection::{Connection, Reading};
use super::head::{Framing, Head, Progress};

/// Follows the messages of a connection.
#[derive(Debug)]
pub(super) struct Scanner {
    state: State,
    pub(super) refusal: Option<Refusal>,
}

#[derive(Debug)]
enum State {
    Head(Head),
    Sized(u64),
    Chunked(Chunked),
}

/// The end of all interpretation.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The violation is to be told.
    Due(Place, Violation),
    /// It has been.
    Told,
}

/// Where a violation was found, which decides how it is told.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// No exchange has begun for it.
    Head,
    /// Somebody reads the body.
    Body,
}

impl Scanner {
    pub(super) fn new() -> Self {
        Self { state: State::Head(Head::default()), refusal: None }
    }

    /// How many of the bytes may pass; at most one message begins. The rest must be shown again.
    pub(super) fn scan(&mut self, bytes: &[u8], connection: &Connection) -> usize {
        let mut pass = 0;
        loop {
            let rest = bytes.get(pass..).unwrap_or_default();
            if rest.is_empty() || self.refusal.is_some() {
                return pass;
            }
            match &mut self.state {
                State::Head(_) if !connection.is_quiet() => return pass,
                State::Head(head) => match head.scan(rest) {
                    Ok(Progress::Partial) => return pass,
                    Ok(Progress::Whole { len, framing }) => {
                        pass += len;
                        connection.take();
                        self.state = match framing {
                            Framing::Nothing => State::Head(Head::default()),
                            Framing::Sized(length) => State::Sized(length),
                            Framing::Chunked => State::Chunked(Chunked::new()),
                        };
                    }
                    Err(violation) => self.refuse(Place::Head, violation),
                },
                State::Sized(left) => {
                    let step = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                    pass += step;
                    *left -= step as u64;
                    if *left == 0 {
                        self.state = State::Head(Head::default());
                    }
                }
                State::Chunked(body) => {
                    let scanned = body.scan(rest);
                    pass += scanned.pass;
                    match scanned.end {
                        Ok(End::NotYet) => return pass,
                        Ok(End::Reached) => self.state = State::Head(Head::default()),
                        Err(violation) => self.refuse(Place::Body, violation),
                    }
                }
            }
        }
    }

    pub(super) fn refuse(&mut self, place: Place, violation: Violation) {
        self.refusal = Some(Refusal::Due(place, violation));
    }

    pub(super) fn is_at_boundary(&self) -> bool {
        matches!(self.state, State::Head(_))
    }

    /// Where the stream is, given the bytes that have not passed.
    pub(super) fn reading(&self, held: &[u8]) -> Reading {
        match &self.state {
            // The refusal is the answer to what was begun.
            State::Head(_) if self.refusal.is_some() => Reading::Boundary,
            State::Head(head) if head.has_begun(held) => Reading::Head,
            State::Head(_) => Reading::Boundary,
            State::Sized(_) | State::Chunked(_) => Reading::Body,
        }
    }
}
