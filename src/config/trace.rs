//! `[tracing]`: where finished exchanges are sent as spans.
//!
//! Without the table nothing is sent, whatever the environment says. With it, the two variables that
//! every OpenTelemetry program knows stand in for what is not typed, since a platform sets those for
//! all of its pods.

use super::address::Url;
use super::problem::Fault;
use super::read::Section;
use super::scope::{EffectiveValue, Resolver, Scope};
use super::settings::TracingSettings;
use super::sources::Sources;

/// The collector's base address; OTLP over HTTP puts `/v1/traces` behind it.
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
/// What the spans' resource is called.
const SERVICE: &str = "OTEL_SERVICE_NAME";

/// What the table means; `None` without it.
pub(super) fn resolve(
    resolver: &mut Resolver<'_, '_>,
    root: &Section,
    sources: &mut Sources<'_>,
) -> Option<TracingSettings> {
    let scope = Scope::top(root, "tracing");
    if !scope.is_typed() {
        return None;
    }
    if !cfg!(feature = "otlp") {
        let fault = Fault::new(
            "this forbear was built without trace export",
            "Take the table out, or use a forbear that was built with the feature otlp, as the image is.",
        );
        resolver.notes.problem(&scope.span, "tracing", None, fault);
        return None;
    }
    let endpoint = endpoint(resolver, &scope, sources);
    let service_name = match from_environment(resolver, &scope, sources, "service_name", SERVICE) {
        Some(name) => name,
        None => resolver.value(&scope, "service_name"),
    };
    let headers = sources.fields(resolver, root.tables.get("tracing"));
    let sample = resolver.value(&scope, "sample");
    let Url { origin, base_path } = endpoint?;
    Some(TracingSettings { origin, base_path, headers, service_name, sample })
}

fn endpoint(
    resolver: &mut Resolver<'_, '_>,
    scope: &Scope<'_>,
    sources: &Sources<'_>,
) -> Option<Url> {
    let Some(text) = from_environment(resolver, scope, sources, "endpoint", ENDPOINT) else {
        return resolver.optional(scope, "endpoint");
    };
    let read = Url::parse(&text).map_err(|fault| {
        let (path, span) = scope.place("endpoint");
        // Not what stands there, which may hold a password.
        let why = format!("{ENDPOINT} is no address: {}", fault.why);
        let fix = "Correct the variable, or write endpoint, which comes before it.";
        resolver.notes.problem(&span, &path, None, Fault::new(why, fix));
    });
    read.ok()
}

/// What a variable says in place of a setting that was not typed.
fn from_environment(
    resolver: &mut Resolver<'_, '_>,
    scope: &Scope<'_>,
    sources: &Sources<'_>,
    name: &str,
    variable: &str,
) -> Option<String> {
    if scope.depth(name).is_some() {
        return None;
    }
    let text = sources.variable(variable)?;
    // An address with a password in it is refused in a moment; here it would be shown.
    let value = if text.contains('@') { "***".into() } else { format!("{text:?}") };
    let (path, origin) = (format!("{}.{name}", scope.path), format!("env {variable}"));
    resolver.effective.push(EffectiveValue { path, value, origin });
    Some(text)
}
