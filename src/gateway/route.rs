//! From a request's target to an upstream and one of its routes.
//!
//! Three ways lead to an upstream, tried in this order: a listener of its own; its origin or one
//! of its `hosts`, named in an absolute target or in `Host`; its prefix, the longest first. What
//! that costs hardly depends on how many upstreams there are, as long as few share one host.
//!
//! Routes of an upstream are tried in the order of the configuration; the first match wins. `back` is
//! the opposite direction: from an address that an upstream names to one that leads here.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use http::Method;

use super::path::{Stripped, spells, strip, unsafe_path};
use super::prefixes::Prefixes;
use crate::config::settings::{Origin, RouteMatch, Scheme, UpstreamConfig};
use crate::proxy::target::{Authority, Naming, Target};

/// Every way into the configured upstreams.
#[derive(Debug)]
pub struct Routes {
    /// In the order of the configuration.
    upstreams: Vec<Entry>,
    by_name: HashMap<Arc<str>, usize>,
    by_prefix: Prefixes,
    /// Who could be meant by a host, in the order of the configuration.
    by_host: HashMap<Host<'static>, Vec<usize>>,
}

/// A host that is spelled in one way only.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Host<'a> {
    Address(IpAddr),
    Name(Cow<'a, str>),
}

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found<'a> {
    /// Index of the upstream in the configuration.
    pub upstream: usize,
    /// Index in its routes; 0 is the default route.
    pub route: usize,
    /// What follows the prefix, as it came: begins with `/`, or is empty when the request named
    /// the prefix itself, so that `url = "https://api.example/graphql"` gets no slash at its end.
    pub path: &'a str,
    /// Without its `?`; `Some("")` for a bare one.
    pub query: Option<&'a str>,
}

/// Why a request goes nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoute {
    /// No prefix, host or listener fits.
    Unmatched,
    /// An absolute target names an origin that is not configured.
    ForeignOrigin,
    /// The origin is an upstream's, but its `url` has a path, and this one is not under it.
    OutsideBase,
    /// The path can be read in two ways; the ending of "the path has …".
    UnsafePath(&'static str),
}

/// An upstream and the path within it, or why there is none.
type Place<'a> = Result<(usize, &'a str), NoRoute>;

impl Routes {
    /// Builds the tables. Indices in [`Found`] are those of `upstreams`.
    pub fn new(upstreams: &[UpstreamConfig]) -> Self {
        let upstreams: Vec<Entry> = upstreams.iter().map(Entry::new).collect();
        let by_prefix = Prefixes::new(upstreams.iter().map(|entry| entry.prefix.as_str()));
        let mut by_name = HashMap::with_capacity(upstreams.len());
        let mut by_host: HashMap<_, Vec<usize>> = HashMap::new();
        for (index, entry) in upstreams.iter().enumerate() {
            by_name.insert(entry.name.clone(), index);
            for host in entry.hosts.iter().chain([&entry.origin.host]) {
                let known = by_host.entry(Host::of_config(host)).or_default();
                if known.last() != Some(&index) {
                    known.push(index);
                }
            }
        }
        Self { upstreams, by_name, by_prefix, by_host }
    }

    /// Index of the upstream of that name.
    pub fn named(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// Finds upstream and route. `listener` is the index of the upstream on whose own listener
    /// the request came in.
    pub fn find<'a>(
        &self,
        listener: Option<usize>,
        method: &Method,
        target: &Target<'a>,
    ) -> Result<Found<'a>, NoRoute> {
        if let Some(why) = unsafe_path(target.path) {
            return Err(NoRoute::UnsafePath(why));
        }
        let (upstream, path) = self.locate(listener, target)?;
        if path.starts_with("//") {
            return Err(NoRoute::UnsafePath("an empty segment right after the prefix"));
        }
        let entry = self.upstreams.get(upstream).ok_or(NoRoute::Unmatched)?;
        let route = entry.route(method, path);
        Ok(Found { upstream, route, path, query: target.query })
    }

    /// Names and prefixes, in the order of the configuration, for people.
    pub fn listing(&self) -> impl Iterator<Item = (&str, &str)> {
        self.upstreams.iter().map(|entry| (&*entry.name, entry.prefix.as_str()))
    }

    fn locate<'a>(&self, listener: Option<usize>, target: &Target<'a>) -> Place<'a> {
        // `OPTIONS *` is about a whole server; no upstream's paths contain it.
        if !target.path.starts_with('/') {
            return Err(NoRoute::Unmatched);
        }
        let named = match &target.naming {
            Naming::Origin(scheme, at) => Some(
                self.by_name(listener, Some(*scheme), at, target.path)
                    .unwrap_or(Err(NoRoute::ForeignOrigin))?,
            ),
            Naming::Host(Some(at)) if listener.is_none() => {
                self.by_name(None, None, at, target.path).transpose()?
            }
            Naming::Host(_) => None,
        };
        match (named, listener) {
            (Some(named), _) => Ok(named),
            (None, Some(own)) => Ok((own, target.path)),
            (None, None) => self.by_prefix(target.path),
        }
    }

    /// By origin or `hosts`; `None` if nobody has that name. Where several upstreams share an
    /// origin, the one with the longest base path that holds the path is meant.
    fn by_name<'a>(
        &self,
        only: Option<usize>,
        scheme: Option<Scheme>,
        at: &Authority<'_>,
        path: &'a str,
    ) -> Option<Place<'a>> {
        let mut best: Option<(usize, Place<'a>)> = None;
        for &index in self.by_host.get(&Host::of(at))? {
            let Some(entry) = self.upstreams.get(index) else { continue };
            if only.is_some_and(|only| only != index) {
                continue;
            }
            if entry.hosts.iter().any(|host| at.is_host(host)) {
                return Some(Ok((index, path)));
            }
            if !names(scheme, at, &entry.origin) {
                continue;
            }
            let found = match strip(path, &entry.base_path) {
                Stripped::Inside(rest) => (entry.base_path.len() + 1, Ok((index, rest))),
                Stripped::Ambiguous => (entry.base_path.len() + 1, Err(AMBIGUOUS)),
                Stripped::Outside => (0, Err(NoRoute::OutsideBase)),
            };
            if best.as_ref().is_none_or(|(length, _)| found.0 > *length) {
                best = Some(found);
            }
        }
        best.map(|(_, found)| found)
    }

    fn by_prefix<'a>(&self, path: &'a str) -> Place<'a> {
        match self.by_prefix.find(path) {
            (index, Stripped::Inside(rest)) => Ok((index, rest)),
            (_, Stripped::Ambiguous) => Err(AMBIGUOUS),
            (_, Stripped::Outside) => Err(NoRoute::Unmatched),
        }
    }
}

impl<'a> Host<'a> {
    fn of(at: &Authority<'a>) -> Self {
        match at.address() {
            Some(address) => Self::Address(address),
            None if at.host.bytes().any(|byte| byte.is_ascii_uppercase()) => {
                Self::Name(at.host.to_ascii_lowercase().into())
            }
            None => Self::Name(at.host.into()),
        }
    }
}

impl Host<'static> {
    fn of_config(host: &str) -> Self {
        host.parse().map_or_else(|_| Self::Name(host.to_owned().into()), Self::Address)
    }
}

const AMBIGUOUS: NoRoute =
    NoRoute::UnsafePath("an encoded separator or a broken escape within its prefix");

/// Whether `scheme` and `at` name `origin`. Over plain HTTP, which is all that a client can write
/// in an absolute target without a tunnel, the default port also means the same host over TLS: the
/// way up only gets safer. `Host` tells no scheme, so there the origin's own default port is meant.
fn names(scheme: Option<Scheme>, at: &Authority<'_>, origin: &Origin) -> bool {
    let own = default_port(origin.scheme);
    let port_fits = match scheme {
        Some(scheme) => {
            let port = at.port.unwrap_or(default_port(scheme));
            (scheme == origin.scheme && port == origin.port)
                || (scheme == Scheme::Http && port == 80 && origin.port == own && own == 443)
        }
        None => at.port.unwrap_or(own) == origin.port,
    };
    port_fits && at.is_host(&origin.host)
}

/// The port that goes without saying.
pub fn default_port(scheme: Scheme) -> u16 {
    match scheme {
        Scheme::Http => 80,
        Scheme::Https => 443,
    }
}

/// What is needed of one upstream to recognise its requests.
#[derive(Debug)]
struct Entry {
    name: Arc<str>,
    origin: Origin,
    base_path: String,
    prefix: String,
    hosts: Vec<String>,
    /// With their indices in the configuration; the default route has no pattern.
    patterns: Vec<(usize, Pattern)>,
}

impl Entry {
    fn new(config: &UpstreamConfig) -> Self {
        let patterns = config.routes.iter().enumerate().filter_map(|(index, route)| {
            route.matcher.as_ref().map(|matcher| (index, Pattern::new(matcher)))
        });
        Self {
            name: Arc::clone(&config.name),
            origin: config.origin.clone(),
            base_path: config.base_path.clone(),
            prefix: config.prefix.clone(),
            hosts: config.hosts.clone(),
            patterns: patterns.collect(),
        }
    }

    fn route(&self, method: &Method, path: &str) -> usize {
        let matched = self.patterns.iter().find(|(_, pattern)| pattern.matches(method, path));
        matched.map_or(0, |(index, _)| *index)
    }
}

/// A [`RouteMatch`], cut into segments once.
#[derive(Debug)]
pub(super) struct Pattern {
    method: Option<String>,
    segments: Vec<Segment>,
    tail: Tail,
}

#[derive(Debug)]
enum Segment {
    Literal(String),
    Any,
}

/// What may follow the last segment of a pattern.
#[derive(Clone, Copy, Debug)]
enum Tail {
    Nothing,
    OneOrMore,
    Anything,
}

impl Pattern {
    pub(super) fn new(config: &RouteMatch) -> Self {
        let mut parts: Vec<&str> = config.path.split('/').filter(|part| !part.is_empty()).collect();
        let tail = match parts.last() {
            Some(&"**") => Tail::Anything,
            Some(&"*") => Tail::OneOrMore,
            Some(_) | None => Tail::Nothing,
        };
        match tail {
            Tail::Nothing => {}
            Tail::OneOrMore | Tail::Anything => drop(parts.pop()),
        }
        let segment = |part: &str| match part {
            "*" => Segment::Any,
            literal => Segment::Literal(literal.to_owned()),
        };
        let segments = parts.into_iter().map(segment).collect();
        Self { method: config.method.clone(), segments, tail }
    }

    /// Empty segments of the path are skipped, as most servers do, so that a doubled slash does
    /// not lead around a route's limits.
    pub(super) fn matches(&self, method: &Method, path: &str) -> bool {
        if self.method.as_deref().is_some_and(|wanted| wanted != method.as_str()) {
            return false;
        }
        let mut parts = path.split('/').filter(|part| !part.is_empty());
        let begins = self.segments.iter().all(|segment| match (segment, parts.next()) {
            (Segment::Literal(literal), Some(part)) => spells(part, literal),
            (Segment::Any, Some(_)) => true,
            (Segment::Literal(_) | Segment::Any, None) => false,
        });
        begins
            && match self.tail {
                Tail::Nothing => parts.next().is_none(),
                Tail::OneOrMore => parts.next().is_some(),
                Tail::Anything => true,
            }
    }
}

mod back;

pub use self::back::{Back, Rewritten, WayBack};

#[cfg(test)]
pub(crate) mod tests;
