//! The way back: an address that an upstream names becomes one that leads through forbear.
//!
//! An API that tells where its next page is names itself, and a client that follows would leave
//! forbear behind it. Addresses of configured upstreams are therefore written as this client can
//! use them: by the name or listener by which it came where that leads to the same place, else by
//! prefix. What was written is looked up again, so that a link can never lead to another upstream
//! than the one it names.

use std::borrow::Cow;
use std::net::SocketAddr;

use super::{Entry, Host, Routes, default_port, names};
use crate::config::settings::Scheme;
use crate::gateway::path::{Stripped, strip, unsafe_path};
use crate::proxy::target::{Authority, Naming, Target};

/// How one client reached one upstream, and so how addresses are written for it.
#[derive(Debug)]
pub struct WayBack<'a> {
    routes: &'a Routes,
    upstream: usize,
    way: Way,
    /// Scheme and authority by which the client came: `http://localhost:8080`.
    own: String,
    /// The path that the client asked for.
    asked: &'a str,
    /// What of it belongs to the upstream.
    within: &'a str,
    /// Where prefixes lead to upstreams, for whoever came by another way.
    main: Option<SocketAddr>,
}

/// What chose the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Prefix,
    /// One of its `hosts`.
    Host,
    /// Its own origin; paths are whole.
    Origin,
    Listener,
}

/// A reference as it is to be: `head` in the place of its first `taken` bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewritten {
    /// What it begins with.
    pub head: String,
    /// What that replaces; a boundary of characters.
    pub taken: usize,
}

/// What became of a reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Back {
    /// It is right as it is, or no address.
    Kept,
    /// It names a server that is not configured.
    Foreign,
    /// It names a configured upstream, in a place that no request through forbear can reach.
    Unreachable,
    /// It leads through forbear now.
    Rewritten(Rewritten),
}

/// A reference in its parts (RFC 3986 appendix B); what follows the path is of no interest.
struct Reference<'a> {
    scheme: Option<Scheme>,
    authority: Option<&'a str>,
    path: &'a str,
    /// Bytes before the path.
    path_at: usize,
}

impl Routes {
    /// How `target`, which came in by `listener` and was found to be for `upstream` with the path
    /// `within` it, can be written. `local` is this end of the client's connection, and `main`
    /// where prefixes lead to upstreams.
    pub fn way_back<'a>(
        &'a self,
        upstream: usize,
        within: &'a str,
        listener: Option<usize>,
        target: &Target<'a>,
        local: SocketAddr,
        main: &[SocketAddr],
    ) -> WayBack<'a> {
        let (scheme, at) = match &target.naming {
            Naming::Origin(scheme, at) => (Some(*scheme), Some(at)),
            Naming::Host(at) => (None, at.as_ref()),
        };
        let entry = self.upstreams.get(upstream);
        let has_host = |at: &&Authority<'_>| {
            entry.is_some_and(|entry| entry.hosts.iter().any(|host| at.is_host(host)))
        };
        let is_origin =
            |at: &&Authority<'_>| entry.is_some_and(|entry| names(scheme, at, &entry.origin));
        let way = match (listener, at) {
            (Some(_), _) if scheme.is_none() => Way::Listener,
            (_, Some(at)) if has_host(&at) => Way::Host,
            (_, Some(at)) if is_origin(&at) => Way::Origin,
            (Some(_), _) => Way::Listener,
            (None, _) => Way::Prefix,
        };
        let scheme = match scheme {
            Some(Scheme::Https) => "https",
            Some(Scheme::Http) | None => "http",
        };
        let own = match at {
            Some(at) => format!("{scheme}://{}", written(at)),
            None => format!("{scheme}://{local}"),
        };
        // Another listener can be reached where this one could, if it is at the same address.
        let same = |main: &&SocketAddr| main.ip().is_unspecified() || main.ip() == local.ip();
        let main = match listener {
            None => Some(local),
            Some(_) => {
                let known = main.iter().filter(|main| main.port() != 0).find(same);
                known.map(|main| SocketAddr::new(local.ip(), main.port()))
            }
        };
        WayBack { routes: self, upstream, way, own, asked: target.path, within, main }
    }
}

/// As it stands in a URL.
fn written(at: &Authority<'_>) -> String {
    let host = match at.address() {
        Some(address) if address.is_ipv6() => Cow::Owned(format!("[{}]", at.host)),
        Some(_) | None => Cow::Borrowed(at.host),
    };
    match at.port {
        Some(port) => format!("{host}:{port}"),
        None => host.into_owned(),
    }
}

impl WayBack<'_> {
    /// What a field of a response, in which every form of reference is resolved by its reader,
    /// has to say instead.
    pub fn of(&self, reference: &str) -> Back {
        let Some(parts) = Reference::parse(reference) else { return Back::Kept };
        match parts.authority {
            Some(at) => self.of_server(&parts, at, reference),
            None if parts.path.starts_with('/') => self.of_path(&parts, reference),
            None => self.of_relative(parts.path),
        }
    }

    /// The same, where only a URL is meant to be followed.
    pub fn of_url(&self, reference: &str) -> Back {
        match Reference::parse(reference) {
            Some(parts) if parts.scheme.is_some() => self.of(reference),
            Some(_) | None => Back::Kept,
        }
    }

    /// The same for the address of an API, which may be one of several hosts that its profile
    /// knows and that serve the same: `is_same` says of which.
    pub fn of_session(&self, reference: &str, is_same: impl Fn(&str) -> bool) -> Back {
        let back = self.of_url(reference);
        let (Back::Foreign, Some(entry)) = (&back, self.routes.upstreams.get(self.upstream)) else {
            return back;
        };
        let parts = Reference::parse(reference);
        let at = parts.as_ref().and_then(|parts| Authority::parse(parts.authority?));
        let (Some(parts), Some(at)) = (parts, at) else { return back };
        // Nobody else's port, and never plain text.
        let is_usual = parts.scheme == Some(Scheme::Https) && matches!(at.port, None | Some(443));
        if !is_usual || !is_same(&at.host.to_ascii_lowercase()) {
            return back;
        }
        match strip(parts.path, &entry.base_path) {
            Stripped::Inside(rest) => self.written(self.upstream, &parts, rest, reference),
            Stripped::Outside | Stripped::Ambiguous => back,
        }
    }

    /// `https://host/path` and `//host/path`.
    fn of_server(&self, parts: &Reference<'_>, at: &str, reference: &str) -> Back {
        let Some(at) = Authority::parse(at) else { return Back::Kept };
        let own = self.routes.upstreams.get(self.upstream).map(|entry| entry.origin.scheme);
        // A reference without a scheme has that of the page it stands on (RFC 3986 5.2.2).
        let Some(scheme) = parts.scheme.or(own) else { return Back::Kept };
        match self.routes.at_origin(scheme, &at, parts.path, self.upstream) {
            None => Back::Foreign,
            Some(None) => Back::Unreachable,
            Some(Some((index, rest))) => self.written(index, parts, rest, reference),
        }
    }

    /// `/path`, at the origin of the upstream that speaks.
    fn of_path(&self, parts: &Reference<'_>, reference: &str) -> Back {
        match self.at_own_origin(parts.path) {
            Some((index, rest)) => self.written(index, parts, rest, reference),
            None => Back::Unreachable,
        }
    }

    /// `page2`, `../page2`: right as it is, unless it climbs above what both sides have in common.
    fn of_relative(&self, path: &str) -> Back {
        let climbs = path.split('/').any(|segment| matches!(segment, "." | ".."));
        if path.is_empty() || (!climbs && !self.within.is_empty()) {
            return Back::Kept;
        }
        let Some(entry) = self.routes.upstreams.get(self.upstream) else { return Back::Kept };
        let theirs = resolved(&format!("{}{}", entry.base_path, self.within), path);
        let ours = resolved(self.asked, path);
        if unsafe_path(&theirs).is_some() {
            return Back::Kept;
        }
        let Some((index, rest)) = self.at_own_origin(&theirs) else { return Back::Unreachable };
        match self.place(index, &theirs, rest) {
            None => Back::Unreachable,
            Some((false, place)) if place == ours => Back::Kept,
            Some((false, head)) => Back::Rewritten(Rewritten { head, taken: path.len() }),
            Some((true, place)) => {
                let head = format!("{}{place}", self.main_url());
                Back::Rewritten(Rewritten { head, taken: path.len() })
            }
        }
    }

    fn at_own_origin<'p>(&self, path: &'p str) -> Option<(usize, &'p str)> {
        let origin = &self.routes.upstreams.get(self.upstream)?.origin;
        let host = if origin.host.contains(':') {
            Cow::Owned(format!("[{}]", origin.host))
        } else {
            Cow::Borrowed(origin.host.as_str())
        };
        let at = format!("{host}:{}", origin.port);
        self.routes.at_origin(origin.scheme, &Authority::parse(&at)?, path, self.upstream)?
    }

    /// The reference with everything before `rest` in forbear's own form.
    fn written(&self, to: usize, parts: &Reference<'_>, rest: &str, reference: &str) -> Back {
        if unsafe_path(parts.path).is_some() || rest.starts_with("//") {
            return Back::Unreachable;
        }
        let Some((is_main, place)) = self.place(to, parts.path, rest) else {
            return Back::Unreachable;
        };
        // What stands at the end is the upstream's own and stays, byte for byte.
        let kept = if place.ends_with(rest) { rest } else { "" };
        let mut head = match (parts.authority, is_main) {
            (_, true) => self.main_url(),
            (Some(_), false) => self.own.clone(),
            (None, false) => String::new(),
        };
        head.push_str(place.strip_suffix(kept).unwrap_or(&place));
        if head.is_empty() && kept.is_empty() {
            head.push('/');
        }
        let taken = parts.path_at + parts.path.len() - kept.len();
        if reference.get(..taken) == Some(head.as_str()) {
            return Back::Kept;
        }
        Back::Rewritten(Rewritten { head, taken })
    }

    /// The path of `rest` of an upstream as this client asks for it, and whether it has to ask at
    /// the main listener's own address. `path` is the whole of it at the upstream.
    fn place(&self, to: usize, path: &str, rest: &str) -> Option<(bool, String)> {
        let entry = self.routes.upstreams.get(to)?;
        let is_main = match self.way {
            Way::Listener | Way::Host if to == self.upstream => {
                return Some((false, rest.to_owned()));
            }
            Way::Origin if self.is_origin_of(entry) => return Some((false, path.to_owned())),
            Way::Prefix => false,
            Way::Listener | Way::Host | Way::Origin => {
                self.main?;
                true
            }
        };
        let place = format!("{}{rest}", entry.prefix.trim_end_matches('/'));
        let leads_there = place.is_empty() || self.routes.by_prefix(&place) == Ok((to, rest));
        leads_there.then_some((is_main, place))
    }

    fn is_origin_of(&self, entry: &Entry) -> bool {
        let own = self.routes.upstreams.get(self.upstream);
        own.is_some_and(|own| own.origin == entry.origin)
    }

    fn main_url(&self) -> String {
        self.main.map(|main| format!("http://{main}")).unwrap_or_default()
    }
}

impl Routes {
    /// The upstream whose `url` holds a path at an origin, and the rest of the path; of several the
    /// one with the longest, and of those that differ in nothing the `preferred`. `None` if nobody has that origin, `Some(None)` if nobody the path.
    fn at_origin<'p>(
        &self,
        scheme: Scheme,
        at: &Authority<'_>,
        path: &'p str,
        preferred: usize,
    ) -> Option<Option<(usize, &'p str)>> {
        let port = at.port.unwrap_or(default_port(scheme));
        let mut found: Option<Option<(usize, usize, &str)>> = None;
        for &index in self.by_host.get(&Host::of(at))? {
            let Some(entry) = self.upstreams.get(index) else { continue };
            let origin = &entry.origin;
            if origin.scheme != scheme || origin.port != port || !at.is_host(&origin.host) {
                continue;
            }
            let best = found.get_or_insert(None);
            if let Stripped::Inside(rest) = strip(path, &entry.base_path)
                && best.is_none_or(|(length, ..)| {
                    let own = entry.base_path.len();
                    own > length || (own == length && index == preferred)
                })
            {
                *best = Some((entry.base_path.len(), index, rest));
            }
        }
        found.map(|best| best.map(|(_, index, rest)| (index, rest)))
    }
}

impl<'a> Reference<'a> {
    /// `None` for what is no reference that is followed over HTTP.
    fn parse(text: &'a str) -> Option<Self> {
        let mut rest = text;
        let end = |text: &str| text.find(['/', '?', '#']).unwrap_or(text.len());
        let scheme = match text.get(..end(text)).and_then(|start| start.split_once(':')) {
            None => None,
            Some((scheme, _)) => {
                rest = text.get(scheme.len() + 1..)?;
                if scheme.eq_ignore_ascii_case("https") {
                    Some(Scheme::Https)
                } else if scheme.eq_ignore_ascii_case("http") {
                    Some(Scheme::Http)
                } else {
                    return None;
                }
            }
        };
        let authority = match rest.strip_prefix("//") {
            Some(after) => {
                let (authority, path) = after.split_at(end(after));
                rest = path;
                Some(authority)
            }
            // `https:page2` is read in two ways (RFC 3986 5.2.2).
            None if scheme.is_some() => return None,
            None => None,
        };
        let path_at = text.len() - rest.len();
        let path = rest.get(..rest.find(['?', '#']).unwrap_or(rest.len()))?;
        Some(Self { scheme, authority, path, path_at })
    }
}

/// A relative path, seen from the page at `base` (RFC 3986 5.2.3 and 5.2.4).
fn resolved(base: &str, path: &str) -> String {
    let folder = base.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut segments: Vec<&str> = folder.split('/').skip(1).collect();
    let mut parts = path.split('/').peekable();
    while let Some(part) = parts.next() {
        let is_last = parts.peek().is_none();
        match part {
            "." | ".." => {
                if part == ".." {
                    segments.pop();
                }
                if is_last {
                    segments.push("");
                }
            }
            other => segments.push(other),
        }
    }
    format!("/{}", segments.join("/"))
}

#[cfg(test)]
mod tests;
