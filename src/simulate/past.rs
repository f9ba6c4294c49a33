//! What a ledger recorded: which requests came, and what the API did about their attempts.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use rusqlite::{Connection, Row, params};

use self::row::{Credential, Known, quota};
use super::figures::Counter;
use super::infer::{self, Seen, Word};
use super::model::{Told, owner};
use super::workload::{add, request, route_of};
use super::world::{Request, World};
use crate::config::settings::Settings;
use crate::gateway::route::Routes;
use crate::policy::line::FlowId;
use crate::policy::time::{MonoTime, WallTime};

mod row;

/// Exchanges that are replayed at most: at about 200 bytes each this is 200 MB, and a ledger keeps
/// 200,000 rows unless it is told to keep more.
pub const EXCHANGES_MAX: usize = 1_000_000;

/// A sampled success stands for others of about the second before it.
const SAMPLED_WITHIN: Duration = Duration::from_secs(1);

/// Which part of the past is meant.
#[derive(Clone, Debug, Default)]
pub struct Part {
    /// Only so long before the newest exchange.
    pub since: Option<Duration>,
    /// Only of this run.
    pub run: Option<String>,
    /// Only with this upstream.
    pub upstream: Option<String>,
}

/// One exchange as it was.
#[derive(Clone, Debug)]
struct Recorded {
    at: Duration,
    upstream: usize,
    route: Option<String>,
    method: Method,
    path: String,
    keys: Option<Arc<[String]>>,
    flow: FlowId,
    credential: Credential,
    told: Told,
    weight: u32,
}

/// A part of a ledger.
#[derive(Clone, Debug)]
pub struct Past {
    start: WallTime,
    exchanges: Vec<Recorded>,
    /// With what was seen of each API.
    upstreams: Vec<(String, Vec<Seen>)>,
    /// How it really was, as far as it is recorded.
    pub real: Real,
}

/// How it really was.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Real {
    /// Rows.
    pub rows: u64,
    /// Exchanges for which they stand.
    pub requests: u64,
    /// From the first arrival to the last end.
    pub seconds: f64,
    /// Refusals by a rate limit that the API sent.
    pub api_429: u64,
    /// forbear's own refusals.
    pub rejected: u64,
}

/// Reads a part of a ledger.
///
/// # Errors
/// A sentence: it cannot be read, or nothing of that part is recorded.
pub fn read(connection: &Connection, part: &Part) -> Result<Past, String> {
    let newest: Option<i64> = connection
        .query_row("SELECT max(started_ms) FROM exchange", [], |row| row.get(0))
        .map_err(|error| format!("the ledger cannot be read: {error}"))?;
    let since = part.since.zip(newest).map_or(i64::MIN, |(since, newest)| {
        newest.saturating_sub(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    });
    rows(connection, part, since)
        .map_err(|error| format!("the ledger cannot be read: {error}"))?
        .ok_or_else(|| nothing(part, newest.is_some()))
}

fn nothing(part: &Part, has_any: bool) -> String {
    if has_any {
        let run = part.run.as_ref().map(|run| format!(" of --run {run}")).unwrap_or_default();
        let upstream =
            part.upstream.as_ref().map(|it| format!(" of --upstream {it}")).unwrap_or_default();
        return format!(
            "the ledger has exchanges, but none{run}{upstream}: leave that out, or look at what there \
             is with `forbear query 'SELECT run, upstream, count(*) FROM exchange GROUP BY 1, 2'`"
        );
    }
    "nothing is recorded in this ledger: forbear writes exchanges to state.path when they end, and keeps \
     them for state.ledger_keep; successes at once only up to state.ledger_successes_per_second"
        .to_owned()
}

fn rows(connection: &Connection, part: &Part, since: i64) -> rusqlite::Result<Option<Past>> {
    let filter = "e.upstream IS NOT NULL AND e.started_ms >= ?1 AND (?2 IS NULL OR e.run = ?2) \
                  AND (?3 IS NULL OR e.upstream = ?3)";
    let chosen = params![since, part.run, part.upstream];
    let sql = format!(
        "SELECT e.seq, e.started_ms, e.took_ms, e.upstream, e.route, e.method, e.path, e.keys, \
         coalesce(e.flow, e.run) AS flow, e.credential, e.status, e.outcome, e.streamed_ms, e.weight \
         FROM exchange e WHERE {filter} ORDER BY e.started_ms, e.seq LIMIT {EXCHANGES_MAX}"
    );
    let mut past: Option<Past> = None;
    let mut by_seq: HashMap<i64, usize> = HashMap::new();
    let mut known = Known::default();
    let mut statement = connection.prepare(&sql)?;
    let mut found = statement.query(chosen)?;
    while let Some(row) = found.next()? {
        let started = WallTime { unix_ms: row.get("started_ms")? };
        let past = past.get_or_insert_with(|| Past {
            start: started,
            exchanges: Vec::new(),
            upstreams: Vec::new(),
            real: Real::default(),
        });
        let exchange = past.exchange(row, started, &mut known)?;
        by_seq.insert(row.get("seq")?, past.exchanges.len());
        past.exchanges.push(exchange);
    }
    let Some(mut past) = past else { return Ok(None) };
    let sql = format!(
        "SELECT a.*, e.weight FROM attempt a JOIN exchange e ON e.seq = a.seq WHERE {filter} ORDER BY a.seq, a.n"
    );
    let mut statement = connection.prepare(&sql)?;
    let mut found = statement.query(chosen)?;
    let mut clock = (i64::MIN, 0.0);
    while let Some(row) = found.next()? {
        past.attempt(row, &by_seq, &mut clock, &mut known)?;
    }
    for (_, seen) in &mut past.upstreams {
        seen.sort_by(|a, b| a.at.total_cmp(&b.at));
    }
    Ok(Some(past))
}

impl Past {
    fn exchange(
        &mut self,
        row: &Row<'_>,
        started: WallTime,
        known: &mut Known,
    ) -> rusqlite::Result<Recorded> {
        let name: String = row.get("upstream")?;
        let upstream = self.upstreams.iter().position(|(known, _)| *known == name);
        let upstream = upstream.unwrap_or_else(|| {
            self.upstreams.push((name, Vec::new()));
            self.upstreams.len() - 1
        });
        let keys = row.get::<_, Option<String>>("keys")?.map(|text| known.keys(text));
        let credential = known.credential(row.get("credential")?);
        let at = started.since(self.start);
        let (took, weight): (f64, i64) = (row.get("took_ms")?, row.get("weight")?);
        let outcome: String = row.get("outcome")?;
        let (status, method): (Option<u16>, String) = (row.get("status")?, row.get("method")?);
        let weight = u32::try_from(weight.max(1)).unwrap_or(u32::MAX);
        self.real.rows += 1;
        self.real.requests += u64::from(weight);
        self.real.seconds = self.real.seconds.max(at.as_secs_f64() + took / 1000.0);
        self.real.rejected += u64::from(outcome.starts_with("rejected_"));
        Ok(Recorded {
            at,
            upstream,
            route: row.get("route")?,
            method: Method::from_bytes(method.as_bytes()).unwrap_or(Method::GET),
            path: row.get("path")?,
            keys,
            flow: row
                .get::<_, Option<String>>("flow")?
                .as_deref()
                .map_or(FlowId::default(), |name| FlowId(owner(name))),
            told: Told {
                whose: owner(&credential.name),
                extra_units: 0,
                took: None,
                body: Some(span(row.get("streamed_ms")?)),
                status: status.filter(|_| outcome == "ok" || outcome == "client_error"),
            },
            credential,
            weight,
        })
    }

    /// Attempts of one exchange follow each other; `clock` is where the one before ended.
    fn attempt(
        &mut self,
        row: &Row<'_>,
        by_seq: &HashMap<i64, usize>,
        clock: &mut (i64, f64),
        known: &mut Known,
    ) -> rusqlite::Result<()> {
        let seq: i64 = row.get("seq")?;
        let Some(exchange) = by_seq.get(&seq).and_then(|at| self.exchanges.get_mut(*at)) else {
            return Ok(());
        };
        if clock.0 != seq {
            *clock = (seq, exchange.at.as_secs_f64());
        }
        for wait in ["queue_ms", "pacing_ms", "cooldown_ms", "backoff_ms", "breaker_ms"] {
            clock.1 += row.get::<_, f64>(wait)? / 1000.0;
        }
        let took = row.get::<_, f64>("took_ms")? / 1000.0;
        let class: String = row.get("class")?;
        let (status, error): (Option<u16>, Option<String>) =
            (row.get("status")?, row.get("error")?);
        let hint = row.get::<_, Option<f64>>("hint_ms")?.map(|ms| ms / 1000.0);
        let word = match (class.as_str(), status) {
            ("throttled" | "exhausted", _) => {
                Word::Refused { hint, source: row.get("hint_source")? }
            }
            ("client", _) => Word::Unknown,
            (_, Some(status)) if status < 500 => Word::Good,
            (_, status) => Word::Failed { status, error },
        };
        match word {
            Word::Refused { .. } => self.real.api_429 += 1,
            Word::Good => exchange.told.took = Some(Duration::from_secs_f64(took.max(0.0))),
            Word::Failed { .. } | Word::Unknown => {}
        }
        let weight: i64 = row.get("weight")?;
        let weight = u32::try_from(weight.max(1)).unwrap_or(u32::MAX);
        let whose = match row.get::<_, Option<String>>("bucket")? {
            Some(bucket) => known.name(format!("{}, bucket {bucket}", exchange.credential.name)),
            None => exchange.credential.name.clone(),
        };
        exchange.told.whose = owner(&whose);
        let quota = quota(row)?;
        let upstream = exchange.upstream;
        if let Some((_, seen)) = self.upstreams.get_mut(upstream) {
            seen.push(Seen { at: clock.1, took, word, weight, whose, quota });
        }
        clock.1 += took;
        Ok(())
    }

    /// The world in which the same requests arrive at the same times under these settings, and what
    /// must be said of it. `given` is a limit that is known better than what can be concluded.
    ///
    /// # Errors
    /// When the settings have none of the recorded upstreams.
    pub fn world(
        &self,
        settings: &Settings,
        given: Option<&super::workload::Api>,
        seed: u64,
    ) -> Result<(World<Counter>, Vec<String>), String> {
        let mut world = World::new(seed, &settings.limits, Counter::default());
        world.wall = self.start;
        let mut said = self.sampling();
        let mut places = Vec::new();
        for (name, seen) in &self.upstreams {
            let found = settings.upstreams.iter().position(|it| *it.name == **name);
            let Some((index, config)) =
                found.and_then(|at| settings.upstreams.get(at).map(|config| (at, config)))
            else {
                said.push(format!(
                    "{name}: left out, since this configuration has no [upstreams.{name}]"
                ));
                places.push(None);
                continue;
            };
            let inferred = infer::model(seen, self.start);
            said.extend(inferred.said.iter().map(|line| format!("{name}: {line}")));
            let mut model = inferred.model;
            if let Some(api) = given {
                model.limit(api.limiters.clone(), api.hints);
                said.push(format!("{name}: --limit takes the place of the inferred limit"));
            }
            add(&mut world, config, model, 0);
            places.push(Some((index, world.ups.len() - 1)));
        }
        if world.ups.is_empty() {
            return Err(format!(
                "none of the recorded upstreams is in this configuration: {}",
                said.join("; ")
            ));
        }
        let routes = Routes::new(&settings.upstreams);
        let mut arrivals = Vec::new();
        for exchange in &self.exchanges {
            let Some(Some((index, up))) = places.get(exchange.upstream) else { continue };
            let request = request_of(&mut world, exchange, settings, &routes, (*index, *up));
            let Some(request) = request else { continue };
            for copy in 0..exchange.weight.min(u32::try_from(EXCHANGES_MAX).unwrap_or(u32::MAX)) {
                let earlier = SAMPLED_WITHIN * copy / exchange.weight;
                let at = exchange.at.saturating_sub(earlier);
                arrivals.push((MonoTime::from_nanos(1) + at, request.clone()));
            }
        }
        arrivals.truncate(EXCHANGES_MAX);
        arrivals.sort_by_key(|(at, _)| *at);
        if let Some((at, _)) = arrivals.first() {
            world.plan_other(*at, 0);
        }
        world.watch.arrivals = arrivals;
        Ok((world, said))
    }

    fn sampling(&self) -> Vec<String> {
        let Real { rows, requests, .. } = self.real;
        let mut said = vec![
            "the ledger does not keep fields or deadlines: all requests have the usual priority"
                .to_owned(),
        ];
        if requests > rows {
            said.push(format!(
                "successes were sampled (state.ledger_successes_per_second): {rows} rows stand for {requests} \
                 exchanges. Each sampled row is replayed as often as it counts, spread over its second: totals \
                 are right, bursts within a second are smoother than they were, and so are their 429s"
            ));
        }
        if self.exchanges.len() >= EXCHANGES_MAX {
            said.push(format!("only the first {EXCHANGES_MAX} exchanges are replayed: narrow it with --since or --run"));
        }
        said
    }
}

/// A recorded exchange as it would arrive.
fn request_of(
    world: &mut World<Counter>,
    exchange: &Recorded,
    settings: &Settings,
    routes: &Routes,
    (index, up): (usize, usize),
) -> Option<Request> {
    let config = settings.upstreams.get(index)?;
    // Recorded as it came; one that came by host or listener has no prefix.
    let own = exchange.path.strip_prefix(&*config.prefix).filter(|own| own.starts_with('/'));
    let path = own.unwrap_or(&exchange.path);
    let route = route_of(routes, index, &exchange.method, path);
    let named = exchange.route.as_deref();
    let named = || config.routes.iter().position(|route| Some(&*route.name) == named);
    let route = route.or_else(named).unwrap_or(0);
    let mut request = request(world, config, up, route, (&exchange.method, path));
    (request.told, request.flow) = (exchange.told, exchange.flow);
    request.credential = exchange.credential.id;
    if let Some(keys) = &exchange.keys {
        request.keys = keys.clone();
    }
    Some(request)
}

fn span(ms: f64) -> Duration {
    Duration::from_secs_f64((ms / 1000.0).max(0.0))
}
