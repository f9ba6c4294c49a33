//! Metric families as text: the Prometheus text format 0.0.4, each line byte for byte as the
//! prometheus crate writes it.
//!
//! A thousand upstreams make a sixth of a million lines, and the crate's encoder formats, escapes
//! and copies every part of each of them. Here a series renders its labels once, a family the
//! bounds of its buckets once, and a count is printed as the whole number that it is.

use std::fmt::Write;

use prometheus::proto::{Histogram, Metric, MetricFamily, MetricType};

/// Up to here a float holds every whole number: 2^53.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;
/// Five labels, as the longest series has them, seldom take more.
const LABELS_BYTES: usize = 128;
/// A `String` takes whatever is written into it.
const FITS: &str = "writing into memory does not fail";

/// Appends one family: HELP, TYPE and its series in the order of their labels. Nothing for a
/// family without series, which would say nothing, or of a type that forbear has none of.
pub(super) fn write_family(text: &mut String, family: &MetricFamily) {
    let kind = match family.get_field_type() {
        MetricType::COUNTER => "counter",
        MetricType::GAUGE => "gauge",
        MetricType::HISTOGRAM => "histogram",
        MetricType::SUMMARY | MetricType::UNTYPED => return,
    };
    let Some(first) = family.get_metric().first() else { return };
    let name = family.name();
    text.extend(["# HELP ", name, " "]);
    escape(text, family.help(), false);
    text.extend(["\n# TYPE ", name, " ", kind, "\n"]);
    let buckets = first.get_histogram().get_bucket();
    let bounds: Vec<String> =
        buckets.iter().map(|bucket| format!("le=\"{}\"}} ", bucket.upper_bound())).collect();
    let labelled = |metric| (labels(metric), metric);
    let mut series: Vec<(String, &Metric)> = family.get_metric().iter().map(labelled).collect();
    series.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    for (labels, metric) in series {
        match family.get_field_type() {
            MetricType::HISTOGRAM => {
                write_histogram(text, name, &labels, &bounds, metric.get_histogram());
            }
            MetricType::GAUGE => {
                write_sample(text, name, "", &labels, metric.get_gauge().get_value());
            }
            MetricType::COUNTER | MetricType::SUMMARY | MetricType::UNTYPED => {
                write_sample(text, name, "", &labels, metric.get_counter().get_value());
            }
        }
    }
}

/// `a="1",b="2"`, without the braces.
fn labels(metric: &Metric) -> String {
    let mut text = String::with_capacity(LABELS_BYTES);
    for pair in metric.get_label() {
        text.extend([if text.is_empty() { "" } else { "," }, pair.name(), "=\""]);
        escape(&mut text, pair.value(), true);
        text.push('"');
    }
    text
}

/// The bounds are the family's, each with all that stands between its line's labels and its count.
fn write_histogram(
    text: &mut String,
    name: &str,
    labels: &str,
    bounds: &[String],
    histogram: &Histogram,
) {
    let comma = if labels.is_empty() { "" } else { "," };
    let everything = histogram.get_sample_count();
    let counts = histogram.get_bucket().iter().map(|bucket| bucket.cumulative_count());
    let buckets = bounds.iter().map(String::as_str).zip(counts);
    for (bound, count) in buckets.chain([("le=\"+Inf\"} ", everything)]) {
        text.extend([name, "_bucket{", labels, comma, bound]);
        writeln!(text, "{count}").expect(FITS);
    }
    write_sample(text, name, "_sum", labels, histogram.get_sample_sum());
    write_sample(text, name, "_count", labels, everything as f64);
}

fn write_sample(text: &mut String, name: &str, suffix: &str, labels: &str, value: f64) {
    let (open, close) = if labels.is_empty() { ("", " ") } else { ("{", "} ") };
    text.extend([name, suffix, open, labels, close]);
    // Printing a float is slow, and nearly all of them are counts.
    let is_count = value.is_sign_positive() && value.fract() == 0.0 && value < WHOLE_MAX;
    if is_count { writeln!(text, "{}", value as u64) } else { writeln!(text, "{value}") }
        .expect(FITS);
}

/// Appends `value` with a backslash before what the format cannot have bare; quotes are only special
/// where quotes are around it.
fn escape(text: &mut String, value: &str, in_quotes: bool) {
    let is_special = |c| matches!(c, '\\' | '\n') || (in_quotes && c == '"');
    if !value.contains(is_special) {
        text.push_str(value);
        return;
    }
    for c in value.chars() {
        if is_special(c) {
            text.push('\\');
        }
        text.push(if c == '\n' { 'n' } else { c });
    }
}
