//! From finished stories to rows, and the bounds on how many there are.

use std::time::Duration;

use rusqlite::{Connection, Transaction, params};

use super::ledger::Record;
use crate::policy::line::CredentialId;
use crate::policy::outcome::{Sent, WaitKind, Waits};
use crate::policy::time::WallTime;
use crate::policy::upstream::{UpstreamPolicy, credential_digits};
use crate::telemetry::names;
use crate::telemetry::story::{AttemptStory, Story};
use crate::telemetry::view::EventView;

/// Events get at most one of so many rows: they are told by each refusal, and must not drive out
/// the exchanges that they explain.
const EVENT_SHARE: u64 = 10;
/// Exchanges that are looked at in one step of forgetting by age.
const AGE_STEP: i64 = 1000;

/// Rows there are; counted once and kept up to date, because counting reads everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) exchanges: u64,
    pub(super) attempts: u64,
    pub(super) events: u64,
}

impl Counts {
    pub(super) fn of(connection: &Connection) -> rusqlite::Result<Self> {
        let count = |table| {
            let sql = format!("SELECT count(*) FROM {table}");
            connection.query_row(&sql, [], |row| row.get(0)).map(|rows: i64| rows.unsigned_abs())
        };
        Ok(Self {
            exchanges: count("exchange")?,
            attempts: count("attempt")?,
            events: count("event")?,
        })
    }
}

/// Writes stories; says what the counts are then.
pub(super) fn insert(
    batch: &Transaction<'_>,
    records: &[Record],
    events: &[EventView],
    mut counts: Counts,
) -> rusqlite::Result<Counts> {
    let mut exchange = batch.prepare(INSERT_EXCHANGE)?;
    let mut attempt = batch.prepare(INSERT_ATTEMPT)?;
    let mut cut_off = batch.prepare(INSERT_CUT_OFF)?;
    for Record { story, weight } in records {
        let unfinished = unfinished(story);
        let sending = story.attempts.iter().map(|attempt| attempt.took).sum::<Duration>();
        let sending = sending + unfinished.unwrap_or_default();
        let own = story.took.saturating_sub(story.waited.total() + sending + story.streamed);
        let waited = |kind| ms(story.waited.of(kind));
        let sent = story.attempts.len() + usize::from(unfinished.is_some());
        let keys = (!story.keys.is_empty()).then(|| story.keys.join(" "));
        let seq = exchange.insert(params![
            story.id.as_str(),
            story.started.unix_ms,
            ms(story.took),
            story.upstream.as_deref(),
            story.route.as_deref(),
            story.method.as_str(),
            // The query may hold secrets; the story should not have one, but a row stays.
            story.path.split(['?', '#']).next(),
            keys,
            story.flow.as_deref(),
            story.run.as_deref(),
            Some(story.status).filter(|status| *status != 0),
            names::outcome(story.ending),
            story.decision.name(),
            story.shadow.map(WaitKind::name),
            integer(sent as u64),
            waited(WaitKind::Queue),
            waited(WaitKind::Pacing),
            waited(WaitKind::Cooldown),
            waited(WaitKind::Backoff),
            waited(WaitKind::Breaker),
            ms(sending),
            ms(story.streamed),
            ms(own),
            story.notes.behind.filter(|_| !story.waited.of(WaitKind::Queue).is_zero()),
            story.notes.retry_at.map(|at| at.unix_ms),
            story.notes.reason.as_deref(),
            integer(story.bytes_up),
            integer(story.bytes_down),
            integer(*weight),
            credential(story.notes.credential),
        ])?;
        counts.exchanges += 1;
        for told in &story.attempts {
            insert_attempt(&mut attempt, seq, told)?;
        }
        if let Some(took) = unfinished {
            cut_off.execute(params![seq, integer(sent as u64), ms(took)])?;
        }
        counts.attempts += sent as u64;
    }
    let mut event = batch.prepare(
        "INSERT INTO event (at_ms, kind, upstream, scope, detail) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    for told in events {
        let EventView { time, kind, upstream, scope, detail } = told;
        event.execute(params![time.0.unix_ms, kind.name(), upstream, scope, detail])?;
        counts.events += 1;
    }
    Ok(counts)
}

const INSERT_EXCHANGE: &str = "\
INSERT INTO exchange (id, started_ms, took_ms, upstream, route, method, path, keys, flow, run,
    status, outcome, decision, shadow, attempts, queue_ms, pacing_ms, cooldown_ms, backoff_ms,
    breaker_ms, sending_ms, streamed_ms, own_ms, behind, retry_at_ms, reason, bytes_up, bytes_down, weight,
    credential)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21,
    ?22, ?23, ?24, ?25, ?26, ?27, ?28, ?29, ?30)";

const INSERT_ATTEMPT: &str = "\
INSERT OR IGNORE INTO attempt (seq, n, status, class, error, sent, took_ms, hint_ms, hint_source,
    hint_raw, queue_ms, pacing_ms, cooldown_ms, backoff_ms, breaker_ms, bucket, quota_name, quota_limit,
    quota_remaining, quota_reset_ms, quota_window_ms)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21)";

/// An attempt whose end nobody waited for.
const INSERT_CUT_OFF: &str = "\
INSERT OR IGNORE INTO attempt (seq, n, class, sent, took_ms, queue_ms, pacing_ms, cooldown_ms,
    backoff_ms, breaker_ms)
VALUES (?1, ?2, 'client', 'partly', ?3, 0, 0, 0, 0, 0)";

fn insert_attempt(
    insert: &mut rusqlite::Statement<'_>,
    seq: i64,
    attempt: &AttemptStory,
) -> rusqlite::Result<()> {
    let waited: &Waits = &attempt.waited;
    let (hint, quota) = (attempt.hint.as_ref(), attempt.told.tightest());
    insert.execute(params![
        seq,
        attempt.n,
        attempt.status,
        names::class(attempt.class),
        attempt.error,
        sent_name(attempt.sent),
        ms(attempt.took),
        hint.map(|hint| ms(hint.wait)),
        hint.map(|hint| hint.source.name()),
        hint.and_then(|hint| hint.raw.as_deref()),
        ms(waited.of(WaitKind::Queue)),
        ms(waited.of(WaitKind::Pacing)),
        ms(waited.of(WaitKind::Cooldown)),
        ms(waited.of(WaitKind::Backoff)),
        ms(waited.of(WaitKind::Breaker)),
        attempt.told.bucket.as_deref(),
        quota.and_then(|quota| quota.name.as_deref()),
        quota.and_then(|quota| quota.limit).map(integer),
        quota.map(|quota| integer(quota.remaining)),
        quota.and_then(|quota| quota.reset).map(ms),
        quota.and_then(|quota| quota.window).map(ms),
    ])?;
    Ok(())
}

/// Digits of its hash; nothing for none.
fn credential(credential: CredentialId) -> Option<String> {
    (!UpstreamPolicy::is_anonymous(credential)).then(|| credential_digits(credential))
}

/// The time of an attempt whose end nobody waited for: what no other part of the story accounts for.
fn unfinished(story: &Story) -> Option<Duration> {
    let told: Duration = story.attempts.iter().map(|attempt| attempt.took).sum();
    story
        .notes
        .sending
        .then(|| story.took.saturating_sub(story.waited.total() + told + story.streamed))
}

/// Deletes what is too old or too much, the oldest first; says what is left.
pub(super) fn trim(
    batch: &Transaction<'_>,
    mut counts: Counts,
    rows_max: u64,
    oldest: WallTime,
) -> rusqlite::Result<Counts> {
    let mut cut = batch.prepare(
        "SELECT max(seq) FROM (SELECT seq, started_ms FROM exchange ORDER BY seq LIMIT ?1) \
         WHERE started_ms < ?2",
    )?;
    while let Some(seq) = cut.query_row([AGE_STEP, oldest.unix_ms], |row| row.get(0))? {
        forget_exchanges(batch, seq, &mut counts)?;
    }
    if counts.events > 0 {
        let sql = "DELETE FROM event WHERE seq <= (SELECT max(seq) FROM (SELECT seq, at_ms FROM event \
                   ORDER BY seq LIMIT ?1) WHERE at_ms < ?2)";
        let gone = batch.execute(sql, [AGE_STEP, oldest.unix_ms])?;
        counts.events = counts.events.saturating_sub(gone as u64);
    }
    let events_max = rows_max / EVENT_SHARE;
    if counts.events > events_max {
        let over = integer(counts.events - events_max);
        let sql = "DELETE FROM event WHERE seq < (SELECT min(seq) FROM event) + ?1";
        let gone = batch.execute(sql, [over])?;
        counts.events = counts.events.saturating_sub(gone as u64);
    }
    // Numbers have no gaps but at the start, so each round deletes at least as many as it means to.
    while counts.exchanges > 0 && counts.exchanges + counts.attempts + counts.events > rows_max {
        let over = counts.exchanges + counts.attempts + counts.events - rows_max;
        let first: i64 = batch.query_row("SELECT min(seq) FROM exchange", [], |row| row.get(0))?;
        let per_exchange = 1 + counts.attempts / counts.exchanges;
        let last = first.saturating_add(integer(over.div_ceil(per_exchange)) - 1);
        forget_exchanges(batch, last, &mut counts)?;
    }
    Ok(counts)
}

fn forget_exchanges(
    batch: &Transaction<'_>,
    last: i64,
    counts: &mut Counts,
) -> rusqlite::Result<()> {
    let exchanges = batch.execute("DELETE FROM exchange WHERE seq <= ?1", [last])?;
    let attempts = batch.execute("DELETE FROM attempt WHERE seq <= ?1", [last])?;
    counts.exchanges = counts.exchanges.saturating_sub(exchanges as u64);
    counts.attempts = counts.attempts.saturating_sub(attempts as u64);
    Ok(())
}

/// How much of a request went out, as a word.
fn sent_name(sent: Sent) -> &'static str {
    match sent {
        Sent::Nothing => "nothing",
        Sent::Partly => "partly",
        Sent::Answered => "answered",
    }
}

/// Milliseconds with three decimals: a microsecond is less than any question asks for.
pub(super) fn ms(span: Duration) -> f64 {
    // Exact up to 285 years.
    span.as_micros() as f64 / 1000.0
}

pub(super) fn integer(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
