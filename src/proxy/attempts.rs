//! THE loop: wait for the turn, send, classify, settle.
//!
//! Whatever forbear does about an exchange happens here, in this order, and nowhere else. If any
//! response came from the upstream, the client gets the latest one; forbear speaks for itself only
//! when nothing was received. A response that is about to be repeated is therefore kept, up to a
//! bound, until something newer replaces it.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::Response;
use http::response::Parts;
use http_body_util::BodyExt;

use super::exchange::{Exchange, Keys, Teller};
use super::gate::{self, InFlight, Place, Stop, seconds};
use super::head;
use super::reading;
use super::reject::{Code, Rejection};
use super::relay::Flow;
use crate::gateway::Common;
use crate::gateway::renewal::Injected;
use crate::policy::outcome::{Class, Health, Outcome, Reading, Repeat, Waits};
use crate::policy::time::MonoTime;
use crate::policy::upstream::{GiveUp, Report, Verdict};
use crate::telemetry::names;
use crate::telemetry::story::{AttemptStory, Decision, Ending, Story, Told};
use crate::transport::error::{SendError, SendErrorKind};
use crate::transport::{self, BodyFault, ReplayState, ResponseBody, SendOptions};

/// A refused response is kept up to this size while its exchange waits; refusals are short. What
/// is larger is not kept, and its connection is closed rather than read to the end.
const KEPT_BYTES_MAX: usize = 64 * 1024;
/// Reading it may take so long; the place in flight is held meanwhile.
const KEPT_TIME_MAX: Duration = Duration::from_secs(1);

/// What the client gets.
pub(super) struct Relay {
    pub(super) parts: Parts,
    pub(super) body: RelayBody,
    /// When its head was there.
    pub(super) at: MonoTime,
    /// When another request would be let through, if the answer is a refusal.
    pub(super) retry_at: Option<MonoTime>,
}

/// Where the bytes come from.
pub(super) enum RelayBody {
    /// The upstream, still sending; the place in flight goes with it.
    Streaming(Box<Flow>),
    /// Kept from an earlier attempt.
    Kept(Bytes),
}

/// An answer that was repeated, in case nothing newer comes.
struct Kept {
    parts: Parts,
    body: Bytes,
}

/// Sends attempts until one is final.
pub(super) async fn run(
    exchange: &Exchange<'_>,
    keys: &Keys,
    teller: &mut Teller,
) -> Result<Relay, Rejection> {
    let began = exchange.anchor.mono;
    if exchange.deadline <= began {
        return Err(out_of_time());
    }
    let mut place = Place::join(exchange, keys, began, &mut teller.story.notes)
        .map_err(|refusal| gate::rejection(exchange, refusal))?;
    let mut kept: Option<Kept> = None;
    let mut fresh = false;
    loop {
        let (mut in_flight, before) = match place.turn(exchange, &mut teller.story.waited).await {
            Ok(granted) => granted,
            Err(Stop::Broken(fault)) => return Err(broken_body(fault)),
            Err(Stop::Refused(refusal)) => {
                teller.story.waited.add(&place.waited());
                let retry_at = refusal.until();
                return last_word(
                    exchange,
                    kept,
                    Decision::DeadlineTooNear,
                    retry_at,
                    teller,
                    || gate::rejection(exchange, refusal),
                );
            }
        };
        teller.story.waited.add(&before.waited);
        teller.story.shadow = teller.story.shadow.or(before.shadow);
        let sent_at = before.at;
        if exchange.deadline <= sent_at {
            let decision = Decision::DeadlineTooNear;
            return last_word(exchange, kept, decision, None, teller, out_of_time);
        }
        teller.story.notes.sending = true;
        let secret = exchange.upstream.state.renewal.newest(&exchange.upstream.head.injected);
        let mut result = send(exchange, sent_at, fresh, secret.as_deref(), &teller.story).await;
        // No further attempt can follow, so this counts a body once.
        if exchange.body.state() == ReplayState::Streamed {
            exchange.upstream.metrics.replay_unavailable.inc();
        }
        let headed = exchange.gateway.common.clock.now();
        let took = headed.since(sent_at);
        let mut now = reading::look_ahead(exchange, &mut result, headed).await;
        let mut outcome = reading::judge(exchange, &result, now, took);
        if let (Class::Credential, Some(sent)) = (outcome.class, &secret) {
            if Box::pin(exchange.upstream.state.is_renewed(sent)).await {
                outcome.repeat = Repeat::Once;
            }
            now = exchange.gateway.common.clock.now();
        }
        if outcome.health == Health::Failure {
            let state = &exchange.upstream.state;
            let class = names::class(outcome.class);
            state.note_failure(match &result {
                Ok(response) => format!("{} {class}", response.status().as_u16()),
                Err(error) => names::attempt_error(error.kind).to_owned(),
            });
        }
        let report = Report {
            outcome,
            exchange: exchange.number,
            took,
            replay: exchange.can_repeat(),
            retry_mode: exchange.retry_mode(),
            draws: [Common::draw(), Common::draw()],
        };
        let verdict = place.settle(&mut in_flight, &report, now);
        let class = report.outcome.class;
        let times = (sent_at.since(began), took);
        note_attempt(teller, &result, report.outcome, times, before.waited);
        exchange.gateway.common.ledger.kept().await;
        let plan = match verdict {
            Verdict::Retry(plan) => plan,
            verdict @ (Verdict::Relay | Verdict::GiveUp(_)) => {
                let final_one = Final { result, in_flight, at: headed, class };
                return last_attempt(exchange, final_one, &verdict, kept, teller);
            }
        };
        if let Ok(response) = result {
            // Boxed, so that exchanges that are not repeated do not carry what this needs.
            kept = Box::pin(keep(response)).await.or(kept);
        }
        // A sleeper holds no place.
        drop(in_flight);
        // It was the secret that was refused, and not the connection.
        fresh = plan.fresh && class != Class::Credential;
        place.rejoin(plan);
    }
}

/// An attempt after which no other follows.
struct Final {
    result: Result<Response<ResponseBody>, SendError>,
    in_flight: InFlight,
    at: MonoTime,
    class: Class,
}

/// What the client gets of it.
fn last_attempt(
    exchange: &Exchange<'_>,
    attempt: Final,
    verdict: &Verdict,
    kept: Option<Kept>,
    teller: &mut Teller,
) -> Result<Relay, Rejection> {
    let Final { result, in_flight, at, class } = attempt;
    let (decision, retry_at) = given_up(verdict);
    match result {
        Ok(response) => {
            conclude(teller, decision, class);
            let (parts, body) = response.into_parts();
            let flow = Box::new(Flow { body, in_flight: Some(in_flight) });
            Ok(Relay { parts, body: RelayBody::Streaming(flow), at, retry_at })
        }
        Err(error) => {
            let decision = decision.unwrap_or(Decision::NotRetryable);
            last_word(exchange, kept, decision, retry_at, teller, || {
                failure(exchange, &error, retry_at)
            })
        }
    }
}

async fn send(
    exchange: &Exchange<'_>,
    now: MonoTime,
    fresh: bool,
    secret: Option<&Injected>,
    story: &Story,
) -> Result<Response<ResponseBody>, SendError> {
    let upstream = exchange.upstream;
    let (parts, seen) = (exchange.parts, exchange.seen);
    let head = head::upstream_request(parts, seen, exchange.path, exchange.query, &upstream.head)
        .and_then(|head| {
            let body = exchange.body.attempt();
            body.map(|body| head.map(|()| body)).ok_or_else(Rejection::internal)
        });
    let mut request = head.map_err(|rejection| SendError {
        kind: SendErrorKind::RequestBody,
        nothing_sent: true,
        detail: rejection.detail,
    })?;
    if let Some((name, value)) = secret {
        request.headers_mut().insert(name.clone(), value.clone());
    }
    if let Some(trace) = &story.trace {
        trace.write(story.next_attempt(), request.headers_mut());
    }
    if let Some(key) = exchange.made_key {
        key.put(request.headers_mut());
    }
    let (head_timeout, idle_timeout) = exchange.timeouts(now);
    transport::send(&upstream.target, request, SendOptions { head_timeout, idle_timeout, fresh })
        .await
}

fn note_attempt(
    teller: &mut Teller,
    result: &Result<Response<ResponseBody>, SendError>,
    outcome: Outcome,
    (sent_after, took): (Duration, Duration),
    waited: Waits,
) {
    let n = teller.story.next_attempt();
    let Reading { hint, bucket, quotas, reach: _ } = outcome.reading;
    teller.story.notes.sending = false;
    teller.story.attempts.push(AttemptStory {
        n,
        status: result.as_ref().ok().map(|response| response.status().as_u16()),
        class: outcome.class,
        sent: outcome.sent,
        error: result.as_ref().err().map(|error| names::attempt_error(error.kind)),
        sent_after,
        took,
        hint,
        told: Told { bucket, quotas },
        waited,
    });
}

/// The caller's time was over before anything could be sent.
fn out_of_time() -> Rejection {
    Rejection::new(Code::Deadline, "The caller's deadline passed before a send.")
}

/// Decision and, if it is known, when another request would be let through.
fn given_up(verdict: &Verdict) -> (Option<Decision>, Option<MonoTime>) {
    let Verdict::GiveUp(why) = verdict else { return (None, None) };
    match why {
        GiveUp::NotRetryable { opens } => (Some(Decision::NotRetryable), *opens),
        GiveUp::AttemptsSpent { opens } => (Some(Decision::AttemptsSpent), *opens),
        GiveUp::BodyNotReplayable { opens } => (Some(Decision::BodyNotReplayable), *opens),
        GiveUp::BudgetSpent { opens } => (Some(Decision::RetryBudgetExhausted), *opens),
        GiveUp::DeadlineTooNear { at } => (Some(Decision::DeadlineTooNear), Some(*at)),
    }
}

/// What the story says of a response that is given to the client.
fn conclude(teller: &mut Teller, decision: Option<Decision>, class: Class) {
    let story = &mut teller.story;
    story.decision = decision.unwrap_or(match story.attempts.len() {
        0 | 1 if story.waited.total() < Duration::from_millis(1) => Decision::Pass,
        0 | 1 => Decision::Waited,
        _ => Decision::Retried,
    });
    story.ending = match class {
        Class::Ok => Ending::Ok,
        Class::Throttled | Class::Exhausted => Ending::Throttled,
        Class::Permanent | Class::Credential | Class::Misdirected | Class::Client => {
            Ending::ClientError
        }
        Class::Transient
        | Class::Unhealthy
        | Class::Overloaded
        | Class::TimedOut
        | Class::Stale => Ending::ServerError,
    };
}

/// The latest response if there was one; forbear's own words otherwise.
fn last_word(
    exchange: &Exchange<'_>,
    kept: Option<Kept>,
    decision: Decision,
    retry_at: Option<MonoTime>,
    teller: &mut Teller,
    rejection: impl FnOnce() -> Rejection,
) -> Result<Relay, Rejection> {
    let Some(kept) = kept else { return Err(rejection()) };
    let status = kept.parts.status.as_u16();
    let attempts = teller.story.attempts.iter().rev();
    let class = attempts.clone().find(|attempt| attempt.status == Some(status));
    let class = class.map_or(Class::Unhealthy, |attempt| attempt.class);
    conclude(teller, Some(decision), class);
    let at = exchange.gateway.common.clock.now();
    Ok(Relay { parts: kept.parts, body: RelayBody::Kept(kept.body), at, retry_at })
}

/// Reads a short response to its end, so that its connection can be used again and its words can
/// still be given to the client.
async fn keep(response: Response<ResponseBody>) -> Option<Kept> {
    let (parts, mut body) = response.into_parts();
    let mut whole = BytesMut::new();
    let reading = async {
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame.ok()?.into_data() {
                if whole.len() + data.len() > KEPT_BYTES_MAX {
                    return None;
                }
                whole.extend_from_slice(&data);
            }
        }
        Some(())
    };
    tokio::time::timeout(KEPT_TIME_MAX, reading).await.ok()??;
    Some(Kept { parts, body: whole.freeze() })
}

/// forbear's own words when nothing was received.
fn failure(exchange: &Exchange<'_>, error: &SendError, retry_at: Option<MonoTime>) -> Rejection {
    let name = &exchange.upstream.config.name;
    let rejection = match error.kind {
        SendErrorKind::Dns
        | SendErrorKind::DnsTimeout
        | SendErrorKind::ConnectRefused
        | SendErrorKind::ConnectTimeout
        | SendErrorKind::OutOfResources
        | SendErrorKind::Connect
        | SendErrorKind::TlsCertificate
        | SendErrorKind::TlsProtocol => {
            let detail = format!("Upstream {name} cannot be reached: {}.", error.detail);
            Rejection::failed(Code::UpstreamUnreachable, error.kind, detail)
        }
        SendErrorKind::HeadTimeout if exchange.is_out_of_time() => {
            let detail =
                format!("Upstream {name} sent no response head before the caller's deadline.");
            Rejection::failed(Code::Deadline, error.kind, detail)
        }
        SendErrorKind::HeadTimeout => {
            let detail = format!(
                "Upstream {name} sent no response head within {}: raise \
                 upstreams.{name}.attempt_timeout if it needs longer.",
                seconds(exchange.attempt_timeout())
            );
            Rejection::failed(Code::Deadline, error.kind, detail)
        }
        SendErrorKind::Stale
        | SendErrorKind::Reset
        | SendErrorKind::Refused
        | SendErrorKind::BadResponse => {
            let detail = format!(
                "The last attempt at upstream {name} ended without a response: {}.",
                error.detail
            );
            Rejection::failed(Code::RetriesExhausted, error.kind, detail)
        }
        SendErrorKind::RequestBody => match exchange.body.fault() {
            Some(fault) => broken_body(fault),
            None => Rejection::bad_request(error.detail.clone()),
        },
    };
    let anchor = exchange.gateway.common.clock.anchor();
    match retry_at {
        Some(at) => rejection.with_retry_at(anchor.wall, at.since(anchor.mono)),
        None => rejection,
    }
}

/// The client's own fault, which only it can mend.
pub(super) fn broken_body(fault: BodyFault) -> Rejection {
    match fault {
        BodyFault::TooSlow => Rejection::bad_request(
            "The request body came too slowly: see proxy.body_timeout, or send it faster.",
        )
        .with_status(http::StatusCode::REQUEST_TIMEOUT),
        BodyFault::ClientGone | BodyFault::Malformed => {
            Rejection::bad_request("The request body is malformed or ended early.")
        }
    }
    .closing()
}
