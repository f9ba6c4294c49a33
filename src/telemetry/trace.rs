//! Where an exchange stands in a distributed trace: W3C Trace Context, levels 1 and 2.
//!
//! A valid `traceparent` of the client passes on as it came, and its trace id goes to the log.
//! Only with a [`Tracer`], which a configuration with `[tracing]` has, is forbear a participant:
//! attempts then name their own span as parent, and a finished story is put where the exporter
//! takes it. What is on the path of a request is here; spans are made from stories elsewhere.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{HeaderMap, HeaderName, HeaderValue};
use prometheus::IntCounter;
use tokio::sync::Notify;

use super::story::Story;
use crate::config::settings::{TracingSettings, UpstreamConfig};

#[cfg(feature = "otlp")]
pub mod otlp;

/// <https://www.w3.org/TR/trace-context/#traceparent-header>.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// <https://www.w3.org/TR/trace-context/#tracestate-header>.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The flag by which a caller says that it records.
const SAMPLED: u8 = 0x01;
/// The flag that says that the trace id is random (level 2).
const RANDOM: u8 = 0x02;

/// Stories that wait for the exporter at most: some seconds of a busy sidecar, about 2 MB.
pub const BACKLOG_MAX: usize = 2048;
/// As many make the exporter begin before its second is over; they go in one request.
pub const BATCH_MAX: usize = 512;

/// Sixteen bytes, not all of them zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId(u128);

/// Eight bytes, not all of them zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanId(u64);

impl TraceId {
    fn random() -> Self {
        Self(fastrand::u128(1..))
    }
}

impl SpanId {
    fn random() -> Self {
        Self(fastrand::u64(1..))
    }

    /// The id of the `n`th thing below this one, for what is only numbered: the same each time, so
    /// that nobody has to keep it. The mixing is that of `SplitMix64`.
    pub fn child(self, n: u64) -> Self {
        let mut bits = self.0.wrapping_add(n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Self((bits ^ (bits >> 31)).max(1))
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What a valid `traceparent` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// The whole trace.
    pub trace: TraceId,
    /// Who calls.
    pub span: SpanId,
    /// Of the flags, those that are known here.
    pub flags: u8,
}

impl TraceParent {
    /// The one of a request. Several are as good as none, since nobody can tell which is right.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        // The usual case is that there is none, and it should cost one look.
        let first = headers.get(TRACEPARENT)?;
        let is_single = headers.get_all(TRACEPARENT).iter().nth(1).is_none();
        is_single.then(|| Self::parse(first.as_bytes())).flatten()
    }

    /// Reads `00-<trace id>-<span id>-<flags>`, lower-case hexadecimal. Of a later version the same
    /// four parts are read, and what follows them behind a further hyphen is not.
    pub fn parse(field: &[u8]) -> Option<Self> {
        let (known, rest) = field.split_at_checked(55)?;
        let mut parts = known.split(|byte| *byte == b'-');
        let mut part = |digits: usize| hex(parts.next()?, digits);
        let version = part(2)?;
        let (trace, span, flags) = (part(32)?, part(16)?, part(2)?);
        let is_whole = match version {
            0 => rest.is_empty(),
            0xff => false,
            _ => matches!(rest.first(), None | Some(b'-')),
        };
        let span = u64::try_from(span).ok()?;
        let flags = u8::try_from(flags).ok()? & (SAMPLED | RANDOM);
        (is_whole && parts.next().is_none() && trace != 0 && span != 0).then_some(Self {
            trace: TraceId(trace),
            span: SpanId(span),
            flags,
        })
    }

    /// Whether the caller records.
    pub fn is_sampled(self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// As a field, in version 00.
    fn field(self) -> Option<HeaderValue> {
        HeaderValue::try_from(self.to_string()).ok()
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace, self.span, self.flags)
    }
}

/// Exactly so many digits; capitals are not allowed.
fn hex(text: &[u8], digits: usize) -> Option<u128> {
    let is_hex =
        text.len() == digits && text.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let text = std::str::from_utf8(text).ok().filter(|_| is_hex)?;
    u128::from_str_radix(text, 16).ok()
}

/// The place of one exchange in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The whole trace; for the log, too.
    pub id: TraceId,
    /// The caller's span, if it told.
    pub parent: Option<SpanId>,
    /// The exchange's own; those of its attempts and waits follow from it.
    pub span: SpanId,
    part: Part,
}

/// What forbear does about a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// The client's fields pass on as they are.
    Bystander,
    /// Attempts carry these flags and their own id; `begun_here` if no caller began the trace.
    Participant { flags: u8, begun_here: bool },
}

impl Trace {
    /// The client's trace, in which forbear leaves no mark.
    pub fn seen(headers: &HeaderMap) -> Option<Self> {
        TraceParent::of(headers).map(Self::beside)
    }

    fn beside(caller: TraceParent) -> Self {
        let (id, parent) = (caller.trace, Some(caller.span));
        Self { id, parent, span: caller.span, part: Part::Bystander }
    }

    /// Whether spans are made of it.
    pub fn is_recorded(&self) -> bool {
        matches!(self.part, Part::Participant { flags, .. } if flags & SAMPLED != 0)
    }

    /// The span of the attempt `n`, counted from 1.
    pub fn attempt(&self, n: u8) -> SpanId {
        self.span.child(u64::from(n))
    }

    /// Writes what attempt `n` says of the trace. A trace that was begun here has no state of
    /// anybody else's: that of an invalid parent goes with it.
    pub fn write(&self, n: u8, headers: &mut HeaderMap) {
        let Part::Participant { flags, begun_here } = self.part else { return };
        let own = TraceParent { trace: self.id, span: self.attempt(n), flags };
        if let Some(field) = own.field() {
            headers.insert(TRACEPARENT, field);
        }
        if begun_here {
            headers.remove(TRACESTATE);
        }
    }
}

/// Begins traces, and hands finished stories to the exporter.
#[derive(Clone)]
pub struct Tracer {
    sample: f64,
    backlog: Backlog,
}

impl Tracer {
    /// Stories go to `backlog`.
    pub fn new(settings: &TracingSettings, backlog: Backlog) -> Self {
        Self { sample: settings.sample, backlog }
    }

    /// The trace of an exchange with these fields. The caller decides whether it is recorded; where
    /// there is none, chance does.
    pub fn begin(&self, headers: &HeaderMap) -> Trace {
        match TraceParent::of(headers) {
            Some(caller) if caller.is_sampled() => Trace {
                id: caller.trace,
                parent: Some(caller.span),
                span: SpanId::random(),
                part: Part::Participant { flags: caller.flags, begun_here: false },
            },
            // Nobody would ever see the span that it would name as parent.
            Some(unsampled) => Trace::beside(unsampled),
            None => {
                let flags = if fastrand::f64() < self.sample { RANDOM | SAMPLED } else { RANDOM };
                Trace {
                    id: TraceId::random(),
                    parent: None,
                    span: SpanId::random(),
                    part: Part::Participant { flags, begun_here: true },
                }
            }
        }
    }

    /// Takes a copy of a finished story if it is recorded. Never waits.
    pub fn tell(&self, story: &Story, upstream: Option<&Arc<UpstreamConfig>>) {
        if story.trace.is_some_and(|trace| trace.is_recorded()) {
            let finished = Finished { story: story.clone(), upstream: upstream.cloned() };
            self.backlog.put(finished);
        }
    }
}

/// A story that is to become spans.
pub struct Finished {
    /// Its end included.
    pub story: Story,
    /// As it was configured then.
    pub upstream: Option<Arc<UpstreamConfig>>,
}

/// What waits for the exporter; bounded, all clones are the same.
#[derive(Clone)]
pub struct Backlog(Arc<Shared>);

struct Shared {
    finished: Mutex<Vec<Finished>>,
    more: Notify,
    dropped: IntCounter,
}

impl Backlog {
    /// An empty one; what does not fit into it is counted.
    pub fn new(dropped: IntCounter) -> Self {
        Self(Arc::new(Shared { finished: Mutex::default(), more: Notify::new(), dropped }))
    }

    fn put(&self, finished: Finished) {
        let mut waiting = self.lock();
        if waiting.len() >= BACKLOG_MAX {
            drop(waiting);
            self.0.dropped.inc();
            return;
        }
        waiting.push(finished);
        let count = waiting.len();
        drop(waiting);
        // In between, the exporter only collects, and need not be told.
        if count == 1 || count == BATCH_MAX {
            self.0.more.notify_one();
        }
    }

    /// Until there are `count`; at once if there are.
    pub async fn until(&self, count: usize) {
        while self.lock().len() < count {
            self.0.more.notified().await;
        }
    }

    /// The oldest, one batch at most.
    pub fn take(&self) -> Vec<Finished> {
        let mut waiting = self.lock();
        let count = waiting.len().min(BATCH_MAX);
        let rest = waiting.split_off(count);
        std::mem::replace(&mut *waiting, rest)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Finished>> {
        self.0.finished.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
