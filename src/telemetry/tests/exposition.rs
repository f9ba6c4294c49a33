//! The text is what the prometheus crate's own encoder would write, in an order of its own.

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{CounterVec, Gauge, GaugeVec, Histogram, HistogramOpts, Opts, TextEncoder};

use super::super::exposition::write_family;
use super::*;

fn ours(families: &[MetricFamily]) -> String {
    let mut text = String::new();
    for family in families {
        write_family(&mut text, family);
    }
    text
}

fn assert_as_the_crate_writes_it(families: &[MetricFamily]) {
    assert_eq!(ours(families), TextEncoder::new().encode_to_string(families).unwrap());
}

#[test]
fn labels_and_helps_are_escaped_as_the_crate_does() {
    for awkward in ["", "\"", "\\", "\n", "\\n", "a\"b\\c\nd", "{x=\"y\"}, 1", "\r\t", "ü—😀", " "]
    {
        let opts = Opts::new("awkward_total", format!("says {awkward}"));
        let family = CounterVec::new(opts, &["a", "b"]).unwrap();
        family.with_label_values(&[awkward, "plain"]).inc();

        assert_as_the_crate_writes_it(&family.collect());
    }
}

#[test]
fn every_kind_of_number_is_written_as_the_crate_does() {
    let whole = 9_007_199_254_740_992.0;
    let awkward = [0.0, -0.0, 1.0, -3.0, 0.1, 1.5e-9, whole - 1.0, whole, whole + 2.0, 1e300];
    let not_finite = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, f64::MIN_POSITIVE];
    for value in awkward.into_iter().chain(not_finite) {
        let gauge = Gauge::new("awkward", "A number.").unwrap();
        gauge.set(value);

        assert_as_the_crate_writes_it(&gauge.collect());
    }
}

#[test]
fn histograms_are_written_as_the_crate_does_with_labels_and_without() {
    for labels in [vec![], vec![("a", "1")], vec![("a", "\""), ("z", "2")]] {
        let opts = HistogramOpts::new("awkward_seconds", "Times.").buckets(vec![1e-4, 0.5, 1.0]);
        let opts = labels.iter().fold(opts, |opts, (name, value)| opts.const_label(*name, *value));
        let histogram = Histogram::with_opts(opts).unwrap();
        for value in [0.0, 0.3, 0.7, 1.0, 5.25] {
            histogram.observe(value);
        }

        assert_as_the_crate_writes_it(&histogram.collect());
    }
}

#[test]
fn series_come_in_the_order_of_their_labels_and_a_family_without_any_is_left_out() {
    let family = GaugeVec::new(Opts::new("level", "Levels."), &["of"]).unwrap();
    assert_eq!(ours(&family.collect()), "");
    for name in ["c", "a", "d", "b"] {
        family.with_label_values(&[name]).set(1.0);
    }

    let text = ours(&family.collect());

    let series: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(series.len(), 4);
    assert!(series.is_sorted(), "{text}");
}

#[test]
fn a_whole_scrape_has_the_lines_that_the_crate_would_write_and_none_twice() {
    let metrics = Metrics::new();
    metrics.upstream(&github()).exchange(&recovered());
    metrics.upstream(&upstream("jira", vec![route("default", None)]));
    let process =
        ProcessView { draining: false, listeners: vec![("proxy".into(), 2), ("proxy".into(), 3)] };
    let stable = |text: &str| {
        let of_ours = |line: &&str| line.contains("forbear_");
        let mut lines: Vec<_> = text.lines().filter(of_ours).map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    };

    let text = scrape::text(&metrics, &[], &[], &process);

    let mut counted: Vec<_> = metrics.families().collect();
    counted.retain(|family| !family.get_metric().is_empty());
    let expected = stable(&TextEncoder::new().encode_to_string(&counted).unwrap());
    let all = stable(&text);
    assert!(expected.len() > 100 && expected.iter().all(|line| all.contains(line)));
    let mut distinct = all.clone();
    distinct.dedup();
    assert_eq!(distinct, all);
    assert_eq!(value(&text, r#"forbear_listener_connections{listener="proxy"}"#), Some(5.0));
}
