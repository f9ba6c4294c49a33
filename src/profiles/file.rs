//! What stands in a profile's file. Unknown keys are errors: a misspelt rule would never apply.

use std::collections::BTreeMap;

use serde::Deserialize;

/// A whole file.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    pub(super) name: Option<String>,
    /// An embedded profile whose rules apply after these.
    pub(super) extends: Option<String>,
    pub(super) title: Option<String>,
    pub(super) docs: Option<String>,
    pub(super) notes: Option<String>,
    pub(super) origins: Vec<String>,
    pub(super) retry_after_unit: Option<Unit>,
    pub(super) reset_unit: Option<Unit>,
    pub(super) window_is_wait: Option<bool>,
    pub(super) refused_may_be_processed: Option<bool>,
    pub(super) idempotency_key: Option<String>,
    pub(super) makes_idempotency_key: Option<bool>,
    pub(super) next_links: Vec<String>,
    pub(super) next_paths: Vec<String>,
    pub(super) session_links: Vec<String>,
    pub(super) attempt_timeout: Option<String>,
    pub(super) idle_timeout: Option<String>,
    pub(super) fields: Vec<Field>,
    pub(super) signatures: Vec<Signature>,
    pub(super) body_quotas: Vec<BodyQuota>,
    pub(super) limits: Vec<Limit>,
    pub(super) buckets: Vec<Bucket>,
    pub(super) costs: Vec<Cost>,
    pub(super) fixtures: Vec<Fixture>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) enum Unit {
    #[serde(rename = "ms")]
    Millis,
    #[serde(rename = "s")]
    Seconds,
    #[serde(rename = "min")]
    Minutes,
}

/// `name = "x-foo-*"`, `form = "used/limit"`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Field {
    pub(super) name: String,
    #[serde(default)]
    pub(super) quota: String,
    pub(super) form: Form,
    /// Of numbers, where the form has some.
    pub(super) unit: Option<Unit>,
    /// `list`: what the numbers are.
    pub(super) of: Option<Count>,
    /// `list`: the windows, in order.
    #[serde(default)]
    pub(super) windows: Vec<String>,
    /// `list`: whether windows begin at multiples of their length.
    #[serde(default)]
    pub(super) aligned: bool,
    /// `json`: keys of percentages.
    #[serde(default)]
    pub(super) percent: Vec<String>,
    /// `json`: keys of waits, with their units.
    #[serde(default)]
    pub(super) wait: BTreeMap<String, Unit>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Form {
    Limit,
    Remaining,
    Used,
    Reset,
    Window,
    #[serde(rename = "used/limit")]
    UsedOfLimit,
    #[serde(rename = "key=value")]
    KeyValues,
    List,
    Json,
    Categories,
    #[serde(rename = "per-second")]
    PerSecond,
    Wait,
    Scope,
    Ignored,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Count {
    Limit,
    Remaining,
    Used,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Signature {
    pub(super) statuses: Vec<Status>,
    /// Fields that must be there, with a part of their values.
    pub(super) fields: BTreeMap<String, String>,
    /// Keys of the body, with the values of which they must have one.
    pub(super) codes: BTreeMap<String, Vec<Code>>,
    pub(super) texts: Vec<String>,
    pub(super) means: Option<Answer>,
    pub(super) wait: Option<Wait>,
    pub(super) scope: Option<String>,
    pub(super) reach: Option<Reach>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Reach {
    Bucket,
    Credential,
    Upstream,
}

/// `429`, or `"400-499"`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(super) enum Status {
    One(u16),
    Range(String),
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(super) enum Code {
    Number(i64),
    Word(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    Ok,
    RateLimited,
    Transient,
    Permanent,
    Auth,
}

/// `"60s"`, `"reset"`, `"unknown"`, or a rule about the body.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub(super) enum Wait {
    Word(String),
    After { after: String, unit: Option<Unit> },
    Bucket { need: String, available: String, rate: String },
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BodyQuota {
    #[serde(default)]
    pub(super) statuses: Vec<Status>,
    #[serde(default)]
    pub(super) quota: String,
    pub(super) limit: Option<String>,
    pub(super) remaining: String,
    pub(super) reset: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Limit {
    pub(super) name: String,
    pub(super) units: u64,
    pub(super) per: String,
    #[serde(default)]
    pub(super) of: String,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Bucket {
    pub(super) name: String,
    pub(super) routes: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cost {
    pub(super) route: String,
    pub(super) units: u64,
}

/// An answer, and how it must be read.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Fixture {
    pub(super) name: String,
    pub(super) status: u16,
    #[serde(default)]
    pub(super) fields: Vec<(String, String)>,
    #[serde(default)]
    pub(super) body: String,
    /// RFC 3339; only where a moment is named.
    pub(super) now: Option<String>,
    pub(super) means: Answer,
    /// Not told: as `means` has it.
    pub(super) limited: Option<bool>,
    /// Not told: no wait is stated.
    pub(super) wait: Option<String>,
    pub(super) limit: Option<u64>,
    pub(super) remaining: Option<u64>,
}
