//! `[[upstreams.<name>.quotas]]`: limits that the operator knows, and what each of them limits.
//!
//! A quota is of a route, of a bucket of the profile, or of everything that goes with one credential.
//! Its name says which, unless `limits` does, so that one part can have several windows.

use std::sync::Arc;
use std::time::Duration;

use super::kind::nearest;
use super::problem::Fault;
use super::read::Section;
use super::scope::{Resolver, Scope};
use super::spec;
use crate::policy::settings::{Pacing, QuotaSettings};

/// All of them. `parts` are the routes and buckets that there are.
pub(super) fn quotas(
    resolver: &mut Resolver<'_, '_>,
    section: &Section,
    parts: &[&str],
) -> Vec<QuotaSettings> {
    let mut quotas: Vec<QuotaSettings> = Vec::new();
    for quota in section.list("quotas") {
        let known = spec::find(spec::UPSTREAM, "quotas").map_or(&[][..], spec::Setting::entries);
        let scope = Scope::new(quota, &[], known);
        let name: String = resolver.value(&scope, "name");
        let requests: Option<u64> = resolver.optional(&scope, "requests");
        let per: Option<Duration> = resolver.optional(&scope, "per");
        let pacing = pacing(&resolver.value::<String>(&scope, "pacing"));
        let limits: Option<String> = resolver.optional(&scope, "limits");
        if !name.is_empty() && quotas.iter().any(|other| *other.name == *name) {
            let fix = format!(
                "Write another name; for a second limit of the same, with limits = {name:?}."
            );
            resolver.contradiction(&scope, "name", Fault::new("another quota has that name", fix));
        }
        if let Some(limits) = &limits {
            check_limited(resolver, &scope, limits, parts);
        } else if let Some(part) =
            nearest(&name, parts.iter().copied()).filter(|part| *part != name)
        {
            let found =
                format!("no route and no bucket is called {name:?}, so it limits each credential");
            let fix = format!("Write {part:?} if you mean that one.");
            resolver.notes.warning(&quota.span, &quota.path, None, Fault::new(found, fix));
        }
        if let (Some(requests), Some(per)) = (requests, per) {
            let name: Arc<str> = name.into();
            let limits = limits.map_or_else(|| Arc::clone(&name), Into::into);
            quotas.push(QuotaSettings { name, limits, requests, per, pacing });
        }
    }
    quotas
}

/// Whoever says what a quota limits means something that exists.
fn check_limited(resolver: &mut Resolver<'_, '_>, scope: &Scope<'_>, limits: &str, parts: &[&str]) {
    if !parts.contains(&limits) {
        let fix = match nearest(limits, parts.iter().copied()) {
            Some(near) => format!("Did you mean {near:?}?"),
            None => {
                format!("There are {}; without it, each credential is limited.", parts.join(", "))
            }
        };
        let why = "no route and no bucket has that name";
        resolver.contradiction(scope, "limits", Fault::new(why, fix));
    }
}

/// How a quota is spent, by its word.
pub(super) fn pacing(word: &str) -> Pacing {
    match word {
        "smooth" => Pacing::Smooth,
        "off" => Pacing::Off,
        _ => Pacing::Observe,
    }
}
