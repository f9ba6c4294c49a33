//! Every setting there is, declared once: name, kind, default and what it is for.
//!
//! Reading, "did you mean", `check --effective` and the JSON Schema all come from these tables,
//! so they cannot disagree; a test holds `config.toml` to them, too. Settings that stand in
//! several tables are constants, and a table that inherits one says so with `inherited`.

mod process;
mod upstream;

use super::kind::{Kind, NameRule};
pub(super) use process::SECRET_HEADER;
pub(super) use upstream::{ROUTE, UPSTREAM};

/// One setting, or one table of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setting {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// As it would be typed, without quotes.
    pub(super) default: Option<&'static str>,
    pub(super) required: bool,
    pub(super) doc: &'static str,
}

impl Setting {
    pub(super) const fn new(name: &'static str, kind: Kind, doc: &'static str) -> Self {
        Self { name, kind, default: None, required: false, doc }
    }

    /// With a value for when nothing is typed.
    pub(super) const fn or(self, default: &'static str) -> Self {
        Self { default: Some(default), ..self }
    }

    /// Must be typed.
    pub(super) const fn required(self) -> Self {
        Self { required: true, ..self }
    }

    /// Without a default of its own, as the surrounding table has it.
    pub(super) const fn inherited(self) -> Self {
        Self { default: None, ..self }
    }

    /// What stands in its tables; empty for a value.
    pub(super) fn entries(&self) -> &'static [Self] {
        if let Kind::Table(entries) | Kind::Named(_, entries) | Kind::List(entries) = self.kind {
            entries
        } else {
            &[]
        }
    }
}

/// The setting of that name in a table.
pub(super) fn find(table: &'static [Setting], name: &str) -> Option<&'static Setting> {
    table.iter().find(|setting| setting.name == name)
}

/// The whole file.
pub(super) const ROOT: &[Setting] = &[
    Setting::new(
        "proxy",
        Kind::Table(process::PROXY),
        "The listeners that callers use, and what is common to all upstreams.",
    ),
    Setting::new(
        "admin",
        Kind::Table(process::ADMIN),
        "The listener of dashboard, API and metrics.",
    ),
    Setting::new(
        "metrics",
        Kind::Table(process::METRICS),
        "An optional read-only listener: /metrics, /healthz, /readyz; and a push at the end.",
    ),
    Setting::new("state", Kind::Table(process::STATE), "What outlives the process."),
    Setting::new("log", Kind::Table(process::LOG), "What is logged, and how."),
    Setting::new(
        "tracing",
        Kind::Table(process::TRACING),
        "Sends finished exchanges as spans to an OpenTelemetry collector; off without the table.",
    ),
    Setting::new("limits", Kind::Table(process::LIMITS), "Limits of the whole process."),
    Setting::new(
        "keys",
        Kind::Named(NameRule::Key, process::KEYS),
        "Concurrency keys: named pools that requests join, across upstreams.",
    ),
    Setting::new("defaults", Kind::Table(upstream::DEFAULTS), "What every upstream starts from."),
    Setting::new(
        "upstreams",
        Kind::Named(NameRule::Plain, UPSTREAM),
        "The APIs that are called. At least one.",
    )
    .required(),
];

/// More than zero.
pub(super) const SPAN: Kind = Kind::Duration { zero: false };
/// Zero switches it off, or means "at once".
pub(super) const SPAN_OR_ZERO: Kind = Kind::Duration { zero: true };

/// A limit of which 0 would let nothing through. The upper bounds are what a sidecar can keep in
/// memory at the very most; more is a typing mistake.
pub(super) const fn limit(max: u64) -> Kind {
    at_least_one(max, "with 0 nothing could ever be sent")
}

/// A number of which 0 makes no sense, and why.
pub(super) const fn at_least_one(max: u64, why: &'static str) -> Kind {
    Kind::Count { min: 1, max, why, fix: "Write 1 or more." }
}

/// A number of which 0 has a meaning.
pub(super) const fn count(max: u64) -> Kind {
    Kind::Count { min: 0, max, why: "", fix: "" }
}
