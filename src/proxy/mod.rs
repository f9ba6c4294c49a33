//! The life of one exchange.
//!
//! `handle` has the steps as its paragraphs: check the head, find the route, read what
//! the client says, wait for the turn and send (`attempts`), relay. Every answer that forbear
//! gives itself leaves through `refuse`, which sees to what the client still sends.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::header::CONNECTION;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;

pub mod target;

pub mod directives;

pub mod head;

pub mod response_head;

pub mod reject;

pub mod problem;

mod attempts;

mod exchange;

mod gate;

mod made_key;

mod links;

mod reading;

mod relay;

pub mod survey;

mod upgrade;

pub use self::relay::DownBody;

use self::attempts::{Relay, RelayBody};
use self::directives::Directives;
use self::exchange::{Exchange, Keys, Teller};
use self::reject::Rejection;
use self::response_head::Follows;
use self::survey::{Kind, Survey};
use self::target::Target;
use self::upgrade::Tunnel;
use crate::gateway::upstream::Upstream;
use crate::gateway::{Gateway, Live};
use crate::policy::time::MonoTime;
use crate::serve::connection::Connection;
use crate::serve::{Exchanges, Intake, ListenerId, Protocol, Violation};
use crate::telemetry::story::{Decision, Ending};
use crate::telemetry::trace::Trace;
use crate::transport::{Replay, Source};

/// What a client still sends after an answer made here is read up to this size …
const DRAIN_BYTES_MAX: u64 = 64 * 1024;
/// … and for this long; then its connection closes behind the answer.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(1);

/// Turns requests into responses, by the configuration in force.
#[derive(Clone)]
pub struct Proxy {
    live: Live,
}

impl Exchanges for Proxy {
    type Body = DownBody;

    fn call(
        &self,
        intake: Intake,
        connection: Arc<Connection>,
    ) -> impl Future<Output = Response<DownBody>> + Send + 'static {
        handle(self.live.load_full(), intake, connection)
    }

    fn panicked(&self) -> Response<DownBody> {
        self.live.load().common.metrics.panics.inc();
        tracing::error!("an exchange panicked; it was answered, and the others go on");
        plain_internal()
    }
}

impl Proxy {
    /// A proxy for whatever gateway is in force when a request comes.
    pub fn new(live: Live) -> Self {
        Self { live }
    }
}

async fn handle(
    gateway: Arc<Gateway>,
    intake: Intake,
    connection: Arc<Connection>,
) -> Response<DownBody> {
    let request = match intake {
        Intake::Request(request) => request,
        Intake::Refused(violation) => {
            let teller = Teller::begin(&gateway, Method::GET, "", None);
            return refuse(teller, violation.into(), None, &connection).await;
        }
    };
    let (mut parts, incoming) = request.into_parts();
    let downstream = parts.extensions.remove::<OnUpgrade>();
    let seen = Survey::of(&parts.headers);
    let trace = trace_of(&gateway, &parts.headers, seen);
    let mut teller = Teller::begin(&gateway, parts.method.clone(), parts.uri.path(), trace);
    let expects_continue = seen.saw(Kind::Expect);

    let (prepared, body) = match prepare(&gateway, &parts, seen, &connection, &mut teller) {
        Ok(prepared) => {
            let replay_max = prepared.upstream.config.replay_body_max;
            let body = replay(&gateway, incoming, replay_max);
            (prepared, body)
        }
        Err(rejection) => {
            let body = (!expects_continue).then(|| replay(&gateway, incoming, 0));
            return refuse(teller, rejection, body.as_ref(), &connection).await;
        }
    };
    let number = next_number();
    let (config, directives) = (&prepared.upstream.config, &prepared.directives);
    let (safety, made_key) = made_key::of(&parts, directives, config, number);
    let exchange = Exchange {
        gateway: &gateway,
        upstream: &prepared.upstream,
        route: prepared.route,
        parts: &parts,
        seen,
        path: prepared.path,
        query: prepared.query,
        directives,
        safety,
        made_key: made_key.as_ref(),
        upgrade: head::upgrade(&parts, seen),
        body: &body,
        expects_continue,
        anchor: teller.anchor,
        deadline: prepared.deadline,
        number,
    };
    let keys = Keys::join(&gateway, &teller.story.keys);
    let mut response = match attempts::run(&exchange, &keys, &mut teller).await {
        Ok(relay) => {
            let upgrade = exchange.upgrade.clone();
            relay_down(relay, upgrade, downstream, &exchange, teller, &connection).await
        }
        Err(rejection) => {
            gateway.common.ledger.kept().await;
            // Where the body's framing was broken, the gate knows what was wrong with it.
            let rejection = connection.violation().map_or(rejection, Rejection::from);
            let unread = !expects_continue || body.bytes_seen() > 0;
            refuse(teller, rejection, unread.then_some(&body), &connection).await
        }
    };
    if let Some(key) = made_key {
        key.echo(response.headers_mut());
    }
    response
}

fn trace_of(gateway: &Gateway, headers: &HeaderMap, seen: Survey) -> Option<Trace> {
    match &gateway.tracer {
        Some(tracer) => Some(tracer.begin(headers)),
        None if seen.saw(Kind::Trace) => Trace::seen(headers),
        None => None,
    }
}

/// A request that may go on.
struct Prepared<'a> {
    upstream: Arc<Upstream>,
    route: usize,
    path: &'a str,
    query: Option<&'a str>,
    directives: Directives,
    deadline: MonoTime,
}

/// Head, route and the client's wishes.
fn prepare<'a>(
    gateway: &Gateway,
    parts: &'a Parts,
    seen: Survey,
    connection: &Connection,
    teller: &mut Teller,
) -> Result<Prepared<'a>, Rejection> {
    head::check(parts, seen)?;
    let target = Target::parse(parts, connection.local())?;
    let own = match connection.listener() {
        ListenerId::Main(_) => None,
        ListenerId::Upstream(name) => gateway.routes.named(name),
    };
    let found = gateway
        .routes
        .find(own, &parts.method, &target)
        .map_err(|why| Rejection::no_route(why, target.path, &gateway.routes))?;
    let upstream = gateway.upstreams.get(found.upstream).ok_or_else(Rejection::internal)?;
    teller.routed(upstream, found.route);

    let common = &gateway.common;
    let directives = Directives::parse(&parts.headers, seen, teller.story.started)?;
    let route = upstream.route(found.route);
    let default_key = route.and_then(|route| route.key.clone()).or(upstream.config.key.clone());
    let story = &mut teller.story;
    story.flow.clone_from(&directives.flow);
    story.run.clone_from(&directives.run);
    story.keys.clone_from(&directives.keys);
    if story.keys.is_empty() {
        story.keys.extend(default_key);
    }
    if common.is_draining() {
        return Err(Rejection::draining(teller.anchor.wall));
    }
    let deadline = directives.deadline.map_or(MonoTime::MAX, |left| teller.anchor.mono + left);
    Ok(Prepared {
        upstream: upstream.clone(),
        route: found.route,
        path: found.path,
        query: found.query,
        directives,
        deadline,
    })
}

fn replay(gateway: &Gateway, incoming: Incoming, keep_max: u64) -> Replay {
    let piece_timeout = gateway.settings.proxy.body_timeout;
    Replay::new(Source::Incoming(incoming), keep_max, gateway.replay_memory.clone(), piece_timeout)
}

/// Gives the upstream's answer to the client.
async fn relay_down(
    relay: Relay,
    upgrade: Option<HeaderValue>,
    downstream: Option<OnUpgrade>,
    exchange: &Exchange<'_>,
    mut teller: Box<Teller>,
    connection: &Arc<Connection>,
) -> Response<DownBody> {
    let Relay { mut parts, mut body, at, retry_at } = relay;
    let upstream_side = parts.extensions.remove::<OnUpgrade>();
    let method = &exchange.parts.method;
    let passed = response_head::downstream_response(&mut parts, method, upgrade.as_ref());
    let passed = match passed {
        Ok(passed) => passed,
        Err(bad) => {
            drop(body);
            let rejection = Rejection::bad_head(&exchange.upstream.config.name, bad.0);
            return refuse(teller, rejection, Some(exchange.body), connection).await;
        }
    };
    let follows = passed.follows;
    teller.headed(at);
    teller.story.status = parts.status.as_u16();
    links::rewrite(exchange, connection, &mut parts, &mut body, passed).await;
    let clock = &exchange.gateway.common.clock;
    let retry = retry_at.map(|at| (at, clock.anchor()));
    if let Some((at, anchor)) = retry {
        response_head::raise_retry_after(&mut parts.headers, at.since(anchor.mono), anchor.wall);
    }
    teller.story.bytes_up = exchange.body.bytes_seen();
    if follows == Follows::Upgraded {
        teller.story.decision = Decision::Upgraded;
    }
    let name = exchange.upstream.head.name.clone();
    let retry_at = retry.map(|(at, anchor)| anchor.wall(at));
    teller.story.notes.retry_at = retry_at;
    response_head::annotate(&mut parts.headers, &teller.story, name, retry_at);
    // What is left of the body may still be on its way up; nobody must wait for its connection.
    if connection.protocol() == Protocol::Http1 && !exchange.body.ended() {
        parts.headers.insert(CONNECTION, HeaderValue::from_static("close"));
        connection.close_after();
    }
    let body = match (body, follows) {
        (RelayBody::Streaming(streaming), Follows::Upgraded) => {
            parts.headers.remove(CONNECTION);
            return switch(
                parts,
                upgrade,
                downstream,
                upstream_side,
                streaming.in_flight,
                teller,
                connection,
            );
        }
        (RelayBody::Streaming(streaming), Follows::Body | Follows::Nothing) => {
            DownBody::stream(streaming, exchange.body.clone(), teller)
        }
        (RelayBody::Kept(bytes), Follows::Body | Follows::Nothing | Follows::Upgraded) => {
            DownBody::whole(bytes, teller)
        }
    };
    if upgrade.is_some() {
        connection.upgrade_settled(false);
    }
    Response::from_parts(parts, body)
}

fn switch(
    mut parts: http::response::Parts,
    upgrade: Option<HeaderValue>,
    downstream: Option<OnUpgrade>,
    upstream: Option<OnUpgrade>,
    in_flight: Option<gate::InFlight>,
    teller: Box<Teller>,
    connection: &Arc<Connection>,
) -> Response<DownBody> {
    connection.upgrade_settled(true);
    if let (Some(downstream), Some(upstream)) = (downstream, upstream) {
        Tunnel { downstream, upstream }.open(in_flight, teller);
    }
    parts.status = StatusCode::SWITCHING_PROTOCOLS;
    parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    if let Some(protocol) = upgrade {
        parts.headers.entry(http::header::UPGRADE).or_insert(protocol);
    }
    Response::from_parts(parts, DownBody::untold(bytes::Bytes::new()))
}

/// The one way out of every answer that forbear makes itself. What the client still sends is read
/// within small bounds, or the connection closes behind the answer: an unread body must never
/// become the next request. Boxed, so that exchanges that are let through do not carry its state.
fn refuse<'a>(
    mut teller: Box<Teller>,
    mut rejection: Rejection,
    body: Option<&'a Replay>,
    connection: &'a Connection,
) -> Pin<Box<impl Future<Output = Response<DownBody>> + use<'a>>> {
    Box::pin(async move {
        teller.rejected(&rejection);
        let is_drained = match body {
            Some(body) if !rejection.close => body.drain(DRAIN_BYTES_MAX, DRAIN_TIME_MAX).await,
            Some(_) | None => false,
        };
        teller.story.bytes_up = body.map_or(0, Replay::bytes_seen);
        if !is_drained && connection.protocol() == Protocol::Http1 {
            rejection.close = true;
        }
        if connection.protocol() == Protocol::Http2 {
            rejection.close = false;
        }
        if rejection.close {
            connection.close_after();
        }
        connection.upgrade_settled(false);
        let is_head = teller.story.method == Method::HEAD;
        let response = problem::render(&rejection, &teller.story, is_head);
        teller.story.ending = Ending::Rejected(rejection.code.name());
        response.map(|bytes| DownBody::whole(bytes, teller))
    })
}

fn plain_internal() -> Response<DownBody> {
    let mut response = Response::new(DownBody::untold(bytes::Bytes::from_static(
        b"{\"type\":\"urn:forbear:internal\",\"status\":500,\"code\":\"internal\"}",
    )));
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    let headers = response.headers_mut();
    headers
        .insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

impl From<Violation> for Rejection {
    fn from(violation: Violation) -> Self {
        Self::new(violation.code, violation.detail).with_status(violation.status).closing()
    }
}

fn next_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
