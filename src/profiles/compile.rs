//! From a profile's file to the profile: words become types, and what cannot be meant is refused.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use super::file::{self, File};
use super::{Bucket, Cost, Limit, Profile, find};
use crate::policy::outcome::Reach;
use crate::policy::profile as policy;

/// Compiles a file. `source` is its name, and the profile's if it has none of its own.
pub(super) fn compile(own: File, source: &str) -> Result<Profile, String> {
    let wrong = |what: &str| format!("{source}: {what}");
    let stem = source.rsplit('/').next().unwrap_or(source).trim_end_matches(".toml");
    let name = own.name.clone().unwrap_or_else(|| stem.to_owned());
    let mut file = match &own.extends {
        Some(base) => {
            let base = find(base).ok_or_else(|| wrong(&super::unknown(base)))?;
            extended(&own, &base.source)
        }
        None => own,
    };
    file.name = Some(name.clone());
    let dialect = dialect(&file, &name).map_err(|problem| wrong(&problem))?;
    let time = |text: &Option<String>| text.as_deref().map(span).transpose();
    let limits = file.limits.iter().map(|limit| {
        let file::Limit { name, units, per, of } = limit.clone();
        Ok(Limit { name, units, per: span(&per)?, of })
    });
    let limits: Result<_, String> = limits.collect();
    let field = |name: &String| {
        let fault = |_| format!("`idempotency_key`: {name:?} cannot be the name of a field");
        HeaderName::from_bytes(name.as_bytes()).map_err(fault)
    };
    let idempotency_key = file.idempotency_key.as_ref().map(field).transpose();
    Ok(Profile {
        name: name.into(),
        title: file.title.clone().unwrap_or_default(),
        docs: file.docs.clone().unwrap_or_default(),
        origins: file.origins.iter().map(|origin| origin.to_ascii_lowercase()).collect(),
        dialect: Arc::new(dialect),
        notes: file.notes.clone().unwrap_or_default(),
        limits: limits.map_err(|problem| wrong(&problem))?,
        buckets: file
            .buckets
            .iter()
            .map(|bucket| Bucket { name: bucket.name.clone(), routes: bucket.routes.clone() })
            .collect(),
        costs: file
            .costs
            .iter()
            .map(|cost| Cost { route: cost.route.clone(), units: cost.units })
            .collect(),
        idempotency_key: idempotency_key.map_err(|problem| wrong(&problem))?,
        makes_idempotency_key: file.makes_idempotency_key.unwrap_or(false),
        links: [&file.next_links[..], &file.next_paths, &file.session_links].concat(),
        attempt_timeout: time(&file.attempt_timeout).map_err(|problem| wrong(&problem))?,
        idle_timeout: time(&file.idle_timeout).map_err(|problem| wrong(&problem))?,
        fixtures: file.fixtures.clone(),
        source: Arc::new(file),
    })
}

/// What is written anew wins; lists of rules are searched from their beginning.
fn extended(own: &File, base: &File) -> File {
    fn both<T: Clone>(own: &[T], base: &[T]) -> Vec<T> {
        own.iter().chain(base).cloned().collect()
    }
    let own_or = |own: &Option<String>, base: &Option<String>| own.clone().or_else(|| base.clone());
    File {
        name: None,
        extends: None,
        title: own_or(&own.title, &base.title),
        docs: own_or(&own.docs, &base.docs),
        notes: own_or(&own.notes, &base.notes),
        origins: own.origins.clone(),
        retry_after_unit: own.retry_after_unit.or(base.retry_after_unit),
        reset_unit: own.reset_unit.or(base.reset_unit),
        window_is_wait: own.window_is_wait.or(base.window_is_wait),
        refused_may_be_processed: own.refused_may_be_processed.or(base.refused_may_be_processed),
        idempotency_key: own_or(&own.idempotency_key, &base.idempotency_key),
        makes_idempotency_key: own.makes_idempotency_key.or(base.makes_idempotency_key),
        next_links: both(&own.next_links, &base.next_links),
        next_paths: both(&own.next_paths, &base.next_paths),
        session_links: both(&own.session_links, &base.session_links),
        attempt_timeout: own_or(&own.attempt_timeout, &base.attempt_timeout),
        idle_timeout: own_or(&own.idle_timeout, &base.idle_timeout),
        fields: both(&own.fields, &base.fields),
        signatures: both(&own.signatures, &base.signatures),
        body_quotas: both(&own.body_quotas, &base.body_quotas),
        limits: both(&own.limits, &base.limits),
        buckets: both(&own.buckets, &base.buckets),
        costs: both(&own.costs, &base.costs),
        fixtures: both(&own.fixtures, &base.fixtures),
    }
}

fn dialect(file: &File, name: &str) -> Result<policy::Profile, String> {
    Ok(policy::Profile {
        name: Cow::Owned(name.to_owned()),
        retry_after_unit: file.retry_after_unit.map(unit),
        reset_unit: file.reset_unit.map(unit),
        window_is_wait: file.window_is_wait.unwrap_or(false),
        refused_may_be_processed: file.refused_may_be_processed.unwrap_or(false),
        fields: file.fields.iter().map(field).collect::<Result<_, _>>()?,
        signatures: file.signatures.iter().map(signature).collect::<Result<_, _>>()?,
        body_quotas: file.body_quotas.iter().map(body_quota).collect::<Result<_, _>>()?,
        links: links(file)?,
        origins: file.origins.iter().map(|origin| origin.to_ascii_lowercase().into()).collect(),
    })
}

fn links(file: &File) -> Result<Vec<policy::LinkPath>, String> {
    use policy::LinkKind;
    let of = |key: &'static str, paths: &[String], kind| {
        let path = |text: &String| {
            let steps = steps(text).ok_or_else(|| {
                format!("`{key}`: {text:?} is no path such as \"paging.next.link\"")
            })?;
            Ok(policy::LinkPath { steps, kind })
        };
        paths.iter().map(path).collect::<Result<Vec<_>, String>>()
    };
    let links = [
        of("next_links", &file.next_links, LinkKind::Url)?,
        of("next_paths", &file.next_paths, LinkKind::UrlOrPath)?,
        of("session_links", &file.session_links, LinkKind::Session)?,
    ]
    .concat();
    if links.len() > policy::LINK_PATHS_MAX {
        return Err(format!("more than {} paths to addresses", policy::LINK_PATHS_MAX));
    }
    Ok(links)
}

/// `service.*.endpoint`: names between dots, `*` for each element of a list. A backslash makes a
/// dot, a star or a backslash part of a name: OData has `@odata.nextLink`.
fn steps(text: &str) -> Option<Vec<policy::Step>> {
    let mut steps = Vec::new();
    let (mut name, mut is_plain) = (String::new(), true);
    let mut chars = text.chars();
    loop {
        let char = chars.next();
        match char {
            Some('.') | None => {
                let step = match name.as_str() {
                    "" => return None,
                    "*" if is_plain => policy::Step::Each,
                    key => policy::Step::Key(key.into()),
                };
                steps.push(step);
                (name, is_plain) = (String::new(), true);
            }
            Some('\\') => {
                is_plain = false;
                name.push(chars.next()?);
            }
            Some(char) => name.push(char),
        }
        if char.is_none() {
            return Some(steps);
        }
    }
}

fn unit(unit: file::Unit) -> policy::Unit {
    match unit {
        file::Unit::Millis => policy::Unit::Millis,
        file::Unit::Seconds => policy::Unit::Seconds,
        file::Unit::Minutes => policy::Unit::Minutes,
    }
}

fn field(field: &file::Field) -> Result<policy::Field, String> {
    use policy::Part;
    let unit_or_seconds = || field.unit.map_or(policy::Unit::Seconds, unit);
    let form = match field.form {
        file::Form::Limit => policy::Form::Part(Part::Limit),
        file::Form::Remaining => policy::Form::Part(Part::Remaining),
        file::Form::Used => policy::Form::Part(Part::Used),
        file::Form::Reset => policy::Form::Part(Part::Reset(field.unit.map(unit))),
        file::Form::Window => policy::Form::Part(Part::Window(unit_or_seconds())),
        file::Form::UsedOfLimit => policy::Form::UsedOfLimit,
        file::Form::KeyValues => policy::Form::KeyValues,
        file::Form::List => policy::Form::List {
            part: match field.of {
                Some(file::Count::Limit) => Part::Limit,
                Some(file::Count::Remaining) => Part::Remaining,
                Some(file::Count::Used) => Part::Used,
                None => return Err(format!("the list {} needs of = \"limit\"", field.name)),
            },
            windows: field.windows.iter().map(|text| span(text)).collect::<Result<_, _>>()?,
            aligned: field.aligned,
        },
        file::Form::Json => policy::Form::Json {
            percent: boxed(&field.percent),
            wait: field.wait.iter().map(|(key, own)| (key.as_str().into(), unit(*own))).collect(),
        },
        file::Form::Categories => policy::Form::Categories,
        file::Form::PerSecond => policy::Form::PerSecond,
        file::Form::Wait => policy::Form::Wait(unit_or_seconds()),
        file::Form::Scope => policy::Form::Scope,
        file::Form::Ignored => policy::Form::Ignored,
    };
    Ok(policy::Field {
        name: field.name.to_ascii_lowercase().into(),
        quota: field.quota.as_str().into(),
        form,
    })
}

fn signature(signature: &file::Signature) -> Result<policy::Signature, String> {
    let fields = signature.fields.iter().map(|(name, contains)| policy::FieldSign {
        name: name.to_ascii_lowercase().into(),
        contains: contains.to_ascii_lowercase().into(),
    });
    let codes = signature.codes.iter().map(|(key, values)| policy::CodeSign {
        key: key.as_str().into(),
        values: values.iter().map(code).collect(),
    });
    if signature.fields.is_empty()
        && signature.codes.is_empty()
        && signature.texts.is_empty()
        && signature.statuses.is_empty()
    {
        return Err("a signature without any sign would be that of every answer".to_owned());
    }
    Ok(policy::Signature {
        statuses: statuses(&signature.statuses)?,
        fields: fields.collect(),
        codes: codes.collect(),
        texts: boxed(&signature.texts),
        answer: signature.means.map(answer),
        wait: signature.wait.as_ref().map(wait).transpose()?,
        scope: signature.scope.as_deref().map(Into::into),
        reach: signature.reach.map(|reach| match reach {
            file::Reach::Bucket => Reach::Bucket,
            file::Reach::Credential => Reach::Credential,
            file::Reach::Upstream => Reach::Upstream,
        }),
    })
}

fn body_quota(quota: &file::BodyQuota) -> Result<policy::BodyQuota, String> {
    Ok(policy::BodyQuota {
        statuses: statuses(&quota.statuses)?,
        quota: quota.quota.as_str().into(),
        limit: quota.limit.as_deref().map(Into::into),
        remaining: quota.remaining.as_str().into(),
        reset: quota.reset.as_deref().map(Into::into),
    })
}

fn statuses(statuses: &[file::Status]) -> Result<policy::Statuses, String> {
    let range = |status: &file::Status| match status {
        file::Status::One(status) => Ok((*status, *status)),
        file::Status::Range(text) => {
            let range = text.split_once('-').and_then(|(first, last)| {
                Some((first.trim().parse().ok()?, last.trim().parse().ok()?))
            });
            range.ok_or_else(|| format!("{text:?} is no range of statuses such as \"400-499\""))
        }
    };
    statuses.iter().map(range).collect::<Result<_, _>>().map(policy::Statuses)
}

fn code(code: &file::Code) -> Box<str> {
    match code {
        file::Code::Number(number) => number.to_string().into(),
        file::Code::Word(word) => word.as_str().into(),
    }
}

pub(super) fn answer(answer: file::Answer) -> policy::Answer {
    match answer {
        file::Answer::Ok => policy::Answer::Ok,
        file::Answer::RateLimited => policy::Answer::RateLimited,
        file::Answer::Transient => policy::Answer::Transient,
        file::Answer::Permanent => policy::Answer::Permanent,
        file::Answer::Auth => policy::Answer::Auth,
    }
}

fn wait(wait: &file::Wait) -> Result<policy::WaitRule, String> {
    Ok(match wait {
        file::Wait::Word(word) if word == "reset" => policy::WaitRule::Reset,
        file::Wait::Word(word) if word == "unknown" => policy::WaitRule::Unknown,
        file::Wait::Word(word) => policy::WaitRule::Fixed(span(word)?),
        file::Wait::After { after, unit: own } => {
            policy::WaitRule::After { words: after.as_str().into(), unit: own.map(unit) }
        }
        file::Wait::Bucket { need, available, rate } => policy::WaitRule::Bucket {
            need: need.as_str().into(),
            available: available.as_str().into(),
            rate: rate.as_str().into(),
        },
    })
}

fn boxed(texts: &[String]) -> Vec<Box<str>> {
    texts.iter().map(|text| text.as_str().into()).collect()
}

/// `500ms`, `30s`, `5m`, `24h`, `7d`.
pub(super) fn span(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time such as \"30s\"");
    let end = text.find(|char: char| !char.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at_checked(end).ok_or_else(wrong)?;
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let millis: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(millis).map(Duration::from_millis).ok_or_else(wrong)
}
