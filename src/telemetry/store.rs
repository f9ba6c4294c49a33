//! Counters of the store: whether the file is there, what was written, what was lost.

use std::time::Duration;

use prometheus::{Gauge, Histogram, IntCounter};

use super::metrics::{Collectors, counters, gauges, histograms};
use super::names;

/// Handles of all of them; cheap to clone.
#[derive(Clone)]
pub struct StoreMetrics {
    up: Gauge,
    fallback: Gauge,
    size: Gauge,
    write: [IntCounter; 2],
    read: [IntCounter; 2],
    duration: Histogram,
    /// Broken files that were moved aside.
    pub moved_aside: IntCounter,
    /// Exchanges that have a row.
    pub kept: IntCounter,
    /// Exchanges that another one's row stands for.
    pub sampled: IntCounter,
    /// Exchanges that were lost.
    pub dropped: IntCounter,
    /// Events that were lost.
    pub events_dropped: IntCounter,
}

impl StoreMetrics {
    pub(super) fn new(collectors: &mut Collectors) -> Self {
        let backend = names::STORE_BACKEND;
        let operations = counters(collectors, &names::STORE_OPERATIONS);
        let [write, read, move_aside] = names::STORE_OPS;
        let results = |op| {
            names::STORE_RESULTS.map(|result| operations.with_label_values(&[backend, op, result]))
        };
        let [moved_aside, _] = results(move_aside);
        let records = counters(collectors, &names::LEDGER_RECORDS);
        let [exchange, event] = names::LEDGER_RECORD;
        let [kept, sampled, dropped] =
            names::LEDGER_RESULTS.map(|result| records.with_label_values(&[exchange, result]));
        let [_, _, lost] = names::LEDGER_RESULTS;
        Self {
            up: gauges(collectors, &names::STORE_UP).with_label_values(&[backend]),
            fallback: gauges(collectors, &names::STORE_FALLBACK).with_label_values(&[backend]),
            size: gauges(collectors, &names::STORE_SIZE).with_label_values(&[backend]),
            write: results(write),
            read: results(read),
            duration: histograms(collectors, &names::STORE_DURATION).with_label_values(&[backend]),
            moved_aside,
            kept,
            sampled,
            dropped,
            events_dropped: records.with_label_values(&[event, lost]),
        }
    }

    /// Counters that nobody reads.
    pub fn unregistered() -> Self {
        Self::new(&mut Collectors::new())
    }

    /// Whether the file, or memory where that was wanted, takes what is told.
    pub fn opened(&self, as_wanted: bool) {
        self.up.set(if as_wanted { 1.0 } else { 0.0 });
        self.fallback.set(if as_wanted { 0.0 } else { 1.0 });
    }

    /// A batch was written, or not.
    pub fn wrote(&self, is_ok: bool, took: Duration) {
        let [ok, failed] = &self.write;
        if is_ok {
            ok.inc()
        } else {
            failed.inc()
        }
        self.duration.observe(took.as_secs_f64());
    }

    /// A question was answered, or not.
    pub fn read(&self, is_ok: bool) {
        let [ok, failed] = &self.read;
        if is_ok { ok.inc() } else { failed.inc() }
    }

    /// Bytes on disk.
    pub fn set_size(&self, bytes: u64) {
        // Exact up to 4 PB.
        self.size.set(bytes as f64);
    }
}
