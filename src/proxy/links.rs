//! Addresses in answers stay inside the proxy.
//!
//! Page 2 of an API has an address that names the API, and a client that follows it leaves forbear,
//! its limits and its waits behind. So addresses of configured upstreams are changed to forbear's
//! own, as this client reached it: in the fields `Link`, `Location`, `Content-Location` and
//! `Refresh`, and in JSON bodies at the paths that the API's profile names, nowhere else. What
//! cannot be read for sure is passed on as it came. How an address is written is
//! [`crate::gateway::route::WayBack`]'s business.

use http::header::{self, HeaderMap, HeaderValue};
use http::response::Parts;

use super::attempts::RelayBody;
use super::exchange::Exchange;
use super::response_head::{Follows, Passed};
use super::target::Target;
use crate::gateway::route::{Back, WayBack};
use crate::serve::ListenerId;
use crate::serve::connection::Connection;
use crate::telemetry::upstream::UpstreamMetrics;
use crate::transport::ResponseBody;

mod body;

mod field;

mod json;

/// Changes the addresses in a response, should it have any.
pub(super) async fn rewrite(
    exchange: &Exchange<'_>,
    connection: &Connection,
    parts: &mut Parts,
    body: &mut RelayBody,
    passed: Passed,
) {
    let config = &exchange.upstream.config;
    if !config.rewrite_links {
        return;
    }
    if passed.has_links
        && let Some(back) = way_back(exchange, connection)
    {
        change_fields(&mut parts.headers, &back, &exchange.upstream.metrics);
    }
    // Most profiles name no place in bodies, so that most bodies are not looked at.
    if !config.dialect.links.is_empty()
        && let (RelayBody::Streaming(flow), Follows::Body) = (body, passed.follows)
        && body::may_have_links(parts, &flow.body)
    {
        // Boxed, so that the many exchanges that need none of it do not carry its state.
        Box::pin(in_body(exchange, connection, parts, &mut flow.body)).await;
    }
}

/// Changes a body, and the fields that describe it. Waits for all of it within bounds of size
/// and time; what is beyond them streams on as it came.
async fn in_body(
    exchange: &Exchange<'_>,
    connection: &Connection,
    parts: &mut Parts,
    body: &mut ResponseBody,
) {
    if let Err(reason) = body::edit(exchange, connection, parts, body).await {
        let (upstream, reason) = (&*exchange.upstream.config.name, reason.name());
        tracing::debug!(upstream, reason, "links in a body were left as they came");
        exchange.upstream.metrics.links_untouched(reason);
    }
}

fn way_back<'a>(exchange: &Exchange<'a>, connection: &Connection) -> Option<WayBack<'a>> {
    let (gateway, local) = (exchange.gateway, connection.local());
    let target = Target::parse(exchange.parts, local).ok()?;
    let listener = match connection.listener() {
        ListenerId::Main(_) => None,
        ListenerId::Upstream(name) => gateway.routes.named(name),
    };
    let upstream = gateway.routes.named(&exchange.upstream.config.name)?;
    let main = &gateway.settings.proxy.listen;
    Some(gateway.routes.way_back(upstream, exchange.path, listener, &target, local, main))
}

fn change_fields(headers: &mut HeaderMap, back: &WayBack<'_>, metrics: &UpstreamMetrics) {
    for (name, value) in headers.iter_mut() {
        let (place, addresses): (_, fn(&str) -> Vec<_>) = match name {
            _ if name == header::LINK => ("link", field::of_link),
            _ if name == header::LOCATION => ("location", field::whole),
            _ if name == header::CONTENT_LOCATION => ("content_location", field::whole),
            _ if name == header::REFRESH => ("refresh", field::of_refresh),
            _ => continue,
        };
        // Titles and the like may have any letters; addresses are ASCII.
        let Ok(text) = std::str::from_utf8(value.as_bytes()) else { continue };
        let mut edits = Vec::new();
        for range in addresses(text) {
            let Some(reference) = text.get(range.clone()) else { continue };
            match back.of(reference) {
                Back::Kept => {}
                Back::Foreign => metrics.links_untouched("foreign"),
                Back::Unreachable => metrics.links_untouched("unreachable"),
                Back::Rewritten(new) => {
                    edits.push((range.start..range.start + new.taken, new.head));
                    metrics.link_rewritten(place);
                }
            }
        }
        if !edits.is_empty()
            && let Ok(new) = HeaderValue::from_bytes(spliced(text, &edits).as_bytes())
        {
            *value = new;
        }
    }
}

/// `text` with each range replaced; the ranges are in order and apart.
fn spliced(text: &str, edits: &[(std::ops::Range<usize>, String)]) -> String {
    let mut new = String::with_capacity(text.len() + edits.len() * 64);
    let mut at = 0;
    for (range, head) in edits {
        new.push_str(text.get(at..range.start).unwrap_or_default());
        new.push_str(head);
        at = range.end;
    }
    new.push_str(text.get(at..).unwrap_or_default());
    new
}
