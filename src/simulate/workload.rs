//! Requests and an API made from a few words: so many clients, so many requests, this limit.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method};

use super::figures::Counter;
use super::model::{Hints, Limiter, Model, Outage, QuotaFields, Told};
use super::world::{Client, Request, World};
use crate::config::settings::{RouteConfig, RouteMatch, Settings, UpstreamConfig};
use crate::config::units::parse_duration;
use crate::gateway::route::Routes;
use crate::gateway::spending::{Spending, shape};
use crate::policy::outcome::Safety;
use crate::policy::profile::{Form, Part, Unit};
use crate::policy::time::MonoTime;
use crate::profiles::{Limit, Profile};
use crate::proxy::target::{Naming, Target};

/// How a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// So many in each window of the clock.
    Window,
    /// So many in any window.
    Sliding,
    /// A bucket of that many, filled once per window.
    Bucket,
    /// So many at once.
    Concurrency,
}

/// A limit as it is typed: `100/10s`, or `8` for so many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Typed {
    /// Units.
    pub max: u32,
    /// In which time; `None` for a number at once.
    pub per: Option<Duration>,
}

impl FromStr for Typed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("write {text:?} as 100/10s, 5000/1h, or 8 with --limit-kind concurrency");
        let (max, per) = match text.split_once('/') {
            Some((max, per)) => {
                let has_number = per.starts_with(|c: char| c.is_ascii_digit());
                let per = if has_number { per.to_owned() } else { format!("1{per}") };
                let per = parse_duration(&per).ok().filter(|per| !per.is_zero());
                (max, Some(per.ok_or_else(wrong)?))
            }
            None => (text, None),
        };
        let max = max.trim().parse().ok().filter(|max| *max > 0).ok_or_else(wrong)?;
        Ok(Self { max, per })
    }
}

impl Typed {
    /// The limiter that is meant.
    ///
    /// # Errors
    /// When a window needs a time and has none.
    pub fn limiter(self, kind: Kind) -> Result<Limiter, String> {
        let Self { max, per } = self;
        let window = || per.ok_or_else(|| format!("--limit {max} needs a time, such as {max}/10s"));
        Ok(match kind {
            Kind::Window => Limiter::Fixed { max, window: window()? },
            Kind::Sliding => Limiter::Sliding { max, window: window()? },
            Kind::Bucket => {
                let per_second = f64::from(max) / window()?.as_secs_f64();
                Limiter::Bucket { per_second, burst: f64::from(max) }
            }
            Kind::Concurrency => Limiter::Concurrency { max },
        })
    }
}

/// An invented job.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Clients, each with one request at a time.
    pub clients: u32,
    /// Requests of all of them.
    pub requests: u32,
    /// Requests per second of all of them; `None` as fast as answers come.
    pub rate: Option<f64>,
    /// To the head of a response; each is within half as much more or less.
    pub latency: Duration,
    /// What each request is.
    pub method: Method,
    /// Its path, as the API has it.
    pub path: String,
    /// When the API is down.
    pub outage: Option<(Duration, Duration)>,
}

/// What the API of a workload enforces, and the words for it.
#[derive(Clone, Debug)]
pub struct Api {
    /// All of them at once.
    pub limiters: Vec<Limiter>,
    /// Units that a request costs.
    pub units: u32,
    /// What refusals say.
    pub hints: Hints,
    /// How the fields of its quota are called.
    pub fields: QuotaFields,
    /// Sentences for people.
    pub said: Vec<String>,
}

/// What the documentation of an API promises for one request.
pub fn api_of(profile: &Profile, upstream: &UpstreamConfig, work: &Workload) -> Api {
    let matches = |patterns: &[String]| matches_any(upstream, patterns, &work.method, &work.path);
    let bucket = profile.buckets.iter().find(|bucket| matches(&bucket.routes));
    let is_bucket = |limit: &Limit| profile.buckets.iter().any(|it| it.name == limit.name);
    let mut meant: Vec<&Limit> = match bucket {
        Some(bucket) => profile.limits.iter().filter(|limit| limit.name == bucket.name).collect(),
        None => Vec::new(),
    };
    if meant.is_empty() {
        // Others stand for other tiers or credentials; the first is the usual one.
        meant = profile.limits.iter().filter(|limit| !is_bucket(limit)).take(1).collect();
    }
    let cost = profile.costs.iter().find(|cost| matches(std::slice::from_ref(&cost.route)));
    let units = cost.map_or(1, |cost| u32::try_from(cost.units).unwrap_or(u32::MAX));
    let limiter = |limit: &&Limit| Limiter::Fixed {
        max: u32::try_from(limit.units).unwrap_or(u32::MAX).max(1),
        window: limit.per,
    };
    let mut said: Vec<String> = meant
        .iter()
        .map(|limit| {
            format!(
                "{}: {} {} per {:?}, in windows of the clock",
                limit.name, limit.units, limit.of, limit.per
            )
        })
        .collect();
    if said.is_empty() {
        said.push(format!("the profile {} documents no limit, so there is none", profile.name));
    }
    if units != 1 {
        said.push(format!("each request costs {units}"));
    }
    Api {
        limiters: meant.iter().map(limiter).collect(),
        units,
        hints: Hints::Quota,
        fields: fields_of(profile),
        said,
    }
}

/// The fields of a profile that names them simply; the usual ones otherwise.
fn fields_of(profile: &Profile) -> QuotaFields {
    let mut fields = QuotaFields::default();
    let dialect = &profile.dialect;
    fields.retry_after_unit = dialect.retry_after_unit.unwrap_or(Unit::Seconds);
    fields.reset_unit = dialect.reset_unit.unwrap_or(Unit::Seconds);
    let simple = |wanted: &dyn Fn(&Part) -> bool| {
        let mut own = dialect.fields.iter().filter(|field| !field.name.contains('*'));
        own.find_map(|field| {
            let Form::Part(part) = &field.form else { return None };
            let is_meant = wanted(part) && field.quota.is_empty();
            let name = HeaderName::from_bytes(field.name.as_bytes()).ok();
            name.filter(|_| is_meant).map(|name| (name, *part))
        })
    };
    let limit = simple(&|part| matches!(part, Part::Limit));
    let remaining = simple(&|part| matches!(part, Part::Remaining));
    let reset = simple(&|part| matches!(part, Part::Reset(_)));
    if let (Some((limit, _)), Some((remaining, _)), Some((reset, Part::Reset(unit)))) =
        (limit, remaining, reset)
    {
        fields = QuotaFields {
            limit,
            remaining,
            reset,
            reset_unit: unit.unwrap_or(fields.reset_unit),
            ..fields
        };
    }
    fields
}

/// Whether one of these patterns is of such a request; read as routes of a configuration are.
fn matches_any(
    upstream: &UpstreamConfig,
    patterns: &[String],
    method: &Method,
    path: &str,
) -> bool {
    let mut config = upstream.clone();
    config.routes.truncate(1);
    let Some(default) = config.routes.first().cloned() else { return false };
    for text in patterns {
        let (method, path) = match text.split_once(' ') {
            Some((method, path)) => (Some(method.to_owned()), path.to_owned()),
            None => (None, text.clone()),
        };
        config
            .routes
            .push(RouteConfig { matcher: Some(RouteMatch { method, path }), ..default.clone() });
    }
    route_of(&Routes::new(&[config]), 0, method, path).is_some_and(|route| route > 0)
}

/// The route on which an upstream's own path is.
pub(super) fn route_of(
    routes: &Routes,
    upstream: usize,
    method: &Method,
    path: &str,
) -> Option<usize> {
    let target = Target { naming: Naming::Host(None), path, query: None };
    routes.find(Some(upstream), method, &target).ok().map(|found| found.route)
}

/// The world in which this job meets this API.
///
/// # Errors
/// When the settings have no such upstream.
pub fn world(
    settings: &Settings,
    upstream: usize,
    work: &Workload,
    api: &Api,
    seed: u64,
) -> Result<World<Counter>, String> {
    let config = settings.upstreams.get(upstream).ok_or("there is no such upstream")?;
    let mut world = World::new(seed, &settings.limits, Counter::default());
    let latency = (work.latency / 2, work.latency * 3 / 2);
    let mut model = Model::with_limits(&api.limiters, api.hints, latency);
    model.fields = api.fields.clone();
    if let Some((from, to)) = work.outage {
        model.outages.push((MonoTime::ZERO + from, MonoTime::ZERO + to, Outage::Error));
    }
    let route = route_of(&Routes::new(&settings.upstreams), upstream, &work.method, &work.path);
    let route = route.unwrap_or(0);
    add(&mut world, config, model, route);
    world.job = work.requests;
    if let Some(rate) = work.rate {
        world.spacing = Duration::from_secs_f64(1.0 / rate);
    }
    let request = Request {
        told: Told { extra_units: api.units - 1, ..Told::default() },
        ..request(&mut world, config, 0, route, (&work.method, &work.path))
    };
    for _ in 0..work.clients {
        let client = Client { request: request.clone(), think: Duration::ZERO, requests: u32::MAX };
        world.add_client(client, Duration::ZERO);
    }
    Ok(world)
}

/// Adds an upstream with everything that its configuration says of it.
pub(super) fn add(world: &mut World<Counter>, config: &UpstreamConfig, model: Model, route: usize) {
    let up = world.add_upstream((*config.policy).clone(), model);
    world.watch.names.push(config.name.to_string());
    let up = world.up(up);
    let spending = Spending::new(config, &mut up.policy);
    up.dialect = config.dialect.clone();
    if let Some(route) = config.routes.get(route).or(config.routes.first()) {
        up.attempt_timeout = route.attempt_timeout;
    }
    world.watch.spending.push(spending);
}

/// A request of which no more is known than its method and its path, as the API has it. `up` is its
/// upstream in the world, added with [`add`].
pub(super) fn request(
    world: &mut World<Counter>,
    config: &UpstreamConfig,
    up: usize,
    route: usize,
    (method, path): (&Method, &str),
) -> Request {
    let key = config.routes.get(route).and_then(|route| route.key.clone()).or(config.key.clone());
    let safety = match *method {
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE => Safety::Safe,
        Method::PUT | Method::DELETE => Safety::Idempotent,
        _ => Safety::Unsafe,
    };
    let keys: Vec<String> = key.iter().map(ToString::to_string).collect();
    let wait_max = config.policy.routes.get(route).map_or(Duration::ZERO, |route| route.max_wait);
    let id = world.up(up).ids.get(route).copied().unwrap_or_default();
    let spending = world.watch.spending.get(up);
    Request {
        route,
        bucket: spending.map(|it| it.bucket(method, path, id)),
        shape: shape(method, path),
        safety,
        keys: Arc::from(keys),
        cost: spending.map_or(1, |it| it.cost(method, path)),
        ..Request::new(up, wait_max)
    }
}

/// A limit in words.
pub fn words(limiter: &Limiter) -> String {
    match limiter {
        Limiter::Open => "no limit".to_owned(),
        Limiter::Fixed { max, window } | Limiter::Shifted { max, window, .. } => {
            format!("{max} per {window:?}, in windows of the clock")
        }
        Limiter::Sliding { max, window } => format!("{max} in any {window:?}"),
        Limiter::Bucket { per_second, burst } => {
            format!("a bucket of {burst} that gains {per_second} per second")
        }
        Limiter::Concurrency { max } => format!("{max} at once"),
        Limiter::Punishing { max, window, penalty } => {
            format!(
                "{max} per {window:?}, and {penalty:?} longer for each request while it is used up"
            )
        }
    }
}
