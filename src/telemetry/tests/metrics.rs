//! What the metrics say of stories and views.

use super::super::names;
use super::*;
use crate::telemetry::view::{BreakerState, BreakerView, Moment, QuotaView, UpstreamView};

#[test]
fn a_recovered_exchange_is_counted_in_every_way_that_it_tells() {
    let metrics = Metrics::new();
    metrics.upstream(&github()).exchange(&recovered());

    let text = text(&metrics);
    for (series, expected) in [
        (
            r#"forbear_requests_total{code="200",method="GET",outcome="ok",route="search",upstream="github"}"#,
            1.0,
        ),
        (r#"forbear_request_duration_seconds_count{upstream="github"}"#, 1.0),
        (r#"forbear_request_duration_seconds_bucket{upstream="github",le="5"}"#, 1.0),
        (r#"forbear_request_duration_seconds_bucket{upstream="github",le="2.5"}"#, 0.0),
        (r#"forbear_requests_recovered_total{by="retry",upstream="github"}"#, 1.0),
        (r#"forbear_requests_recovered_total{by="wait",upstream="github"}"#, 0.0),
        (r#"forbear_body_bytes_total{direction="response",upstream="github"}"#, 812.0),
        (r#"forbear_upstream_attempts_total{code="429",upstream="github"}"#, 1.0),
        (r#"forbear_upstream_attempts_total{code="200",upstream="github"}"#, 1.0),
        (r#"forbear_upstream_attempt_duration_seconds_count{upstream="github"}"#, 2.0),
        (r#"forbear_retries_total{reason="status_429",upstream="github"}"#, 1.0),
        (r#"forbear_retry_after_total{form="delta",upstream="github"}"#, 1.0),
        (r#"forbear_wait_duration_seconds_sum{reason="cooldown",upstream="github"}"#, 4.01),
        (r#"forbear_wait_duration_seconds_count{reason="backoff",upstream="github"}"#, 0.0),
        ("forbear_overhead_seconds_sum", 0.001),
    ] {
        assert_eq!(value(&text, series), Some(expected), "{series}\n{text}");
    }
}

#[test]
fn a_wait_that_was_cut_and_a_field_that_cannot_be_read_are_counted_as_such() {
    let metrics = Metrics::new();
    let mut story = recovered();
    if let Some(hint) = story.attempts.iter_mut().find_map(|attempt| attempt.hint.as_mut()) {
        hint.wait = crate::policy::hints::WAIT_MAX;
    }
    let upstream = metrics.upstream(&github());
    upstream.exchange(&story);
    upstream.unread(3);
    let text = text(&metrics);
    for (form, expected) in [("capped", 1.0), ("invalid", 3.0), ("delta", 0.0), ("body", 0.0)] {
        let series = format!(r#"forbear_retry_after_total{{form="{form}",upstream="github"}}"#);
        assert_eq!(value(&text, &series), Some(expected), "{series}\n{text}");
    }
}

#[test]
fn an_attempt_without_a_status_counts_as_none_and_by_its_error() {
    let metrics = Metrics::new();
    let mut story = recovered();
    story.attempts = vec![
        AttemptStory {
            status: None,
            sent: Sent::Nothing,
            error: Some("connect"),
            ..answered(1, 0, Class::Unhealthy, 3)
        },
        AttemptStory {
            status: None,
            sent: Sent::Partly,
            error: Some("never heard of"),
            ..answered(2, 0, Class::Unhealthy, 3)
        },
    ];
    story.status = 502;
    story.decision = Decision::Rejected("retries_exhausted");
    story.ending = Ending::Rejected("retries_exhausted");
    metrics.upstream(&github()).exchange(&story);

    let text = text(&metrics);
    for (series, expected) in [
        (
            r#"forbear_requests_total{code="502",method="GET",outcome="rejected_retries_exhausted",route="search",upstream="github"}"#,
            1.0,
        ),
        (r#"forbear_upstream_attempts_total{code="none",upstream="github"}"#, 2.0),
        (r#"forbear_upstream_attempt_errors_total{error="connect",upstream="github"}"#, 1.0),
        (r#"forbear_upstream_attempt_errors_total{error="other",upstream="github"}"#, 1.0),
        (r#"forbear_retries_total{reason="connect",upstream="github"}"#, 1.0),
        (r#"forbear_retries_exhausted_total{by="attempts",upstream="github"}"#, 1.0),
        (r#"forbear_requests_recovered_total{by="retry",upstream="github"}"#, 0.0),
    ] {
        assert_eq!(value(&text, series), Some(expected), "{series}\n{text}");
    }
}

#[test]
fn a_refusal_by_a_breaker_is_charged_to_the_breaker_of_its_route() {
    let metrics = Metrics::new();
    let handles = metrics.upstream(&github());
    for route in ["search", "default", "default"] {
        let mut story = recovered();
        story.route = Some(route.into());
        story.attempts.clear();
        story.ending = Ending::Rejected(names::CODE_BREAKER_OPEN);
        handles.exchange(&story);
    }

    let text = text(&metrics);
    let rejections = |breaker: &str| {
        let series = "forbear_breaker_rejections_total";
        value(&text, &format!(r#"{series}{{breaker="{breaker}",upstream="github"}}"#))
    };
    assert_eq!(rejections("route search"), Some(1.0));
    assert_eq!(rejections("upstream"), Some(2.0));
}

#[test]
fn label_sets_known_from_the_configuration_exist_at_zero() {
    let metrics = Metrics::new();
    metrics.upstream(&github());
    metrics.key("tenant:*");

    let text = text(&metrics);
    let mut expected = vec![
        "forbear_panics_total".to_owned(),
        "forbear_accept_errors_total".to_owned(),
        "forbear_log_lines_dropped_total".to_owned(),
        r#"forbear_config_reloads_total{result="refused"}"#.to_owned(),
        r#"forbear_replay_unavailable_total{upstream="github"}"#.to_owned(),
        r#"forbear_concurrency_rejections_total{key="tenant:*",reason="timeout"}"#.to_owned(),
        r#"forbear_breaker_transitions_total{breaker="route search",from="closed",to="open",upstream="github"}"#
            .to_owned(),
    ];
    for route in ["default", "search"] {
        expected.push(format!(
            r#"forbear_requests_total{{code="200",method="GET",outcome="ok",route="{route}",upstream="github"}}"#
        ));
    }
    for reason in names::RETRY_REASONS {
        expected.push(format!(r#"forbear_retries_total{{reason="{reason}",upstream="github"}}"#));
    }
    for place in names::LINK_PLACES {
        let series = "forbear_links_rewritten_total";
        expected.push(format!(r#"{series}{{upstream="github",where="{place}"}}"#));
    }
    for reason in names::LINK_REASONS {
        let series = "forbear_links_untouched_total";
        expected.push(format!(r#"{series}{{reason="{reason}",upstream="github"}}"#));
    }
    for by in names::EXHAUSTED_BY {
        expected.push(format!(r#"forbear_retries_exhausted_total{{by="{by}",upstream="github"}}"#));
    }
    for series in expected {
        assert_eq!(value(&text, &series), Some(0.0), "{series}\n{text}");
    }
}

#[test]
fn a_reload_goes_on_counting_and_removes_what_is_gone() {
    let metrics = Metrics::new();
    metrics.upstream(&github()).exchange(&recovered());
    metrics.upstream(&upstream("gone", vec![route("default", None)]));
    metrics.key("gone:*");
    metrics.unrouted(&recovered());
    let kept = upstream("github", vec![route("default", None), route("search", None)]);
    let settings = settings(vec![kept.clone()]);

    metrics.upstream(&kept).exchange(&recovered());
    metrics.retain(&settings);

    let text = text(&metrics);
    assert!(!text.contains("gone"), "{text}");
    assert!(text.contains(r#"breaker="route search""#), "the route still exists\n{text}");
    let requests = r#"forbear_requests_total{code="200",method="GET",outcome="ok",route="search",upstream="github"}"#;
    assert_eq!(value(&text, requests), Some(2.0));
    assert!(text.contains(r#"upstream="_none""#), "{text}");
}

#[test]
fn gauges_show_the_state_of_the_moment_and_nothing_older() {
    let metrics = Metrics::new();
    let reset = Moment(WallTime { unix_ms: 1_768_471_200_500 });
    let quota = |scope: &str, limit, remaining| QuotaView {
        scope: scope.into(),
        name: None,
        bucket: scope.into(),
        is_told: true,
        limit: Some(limit),
        remaining,
        reset_at: Some(reset),
        reset_in_ms: Some(60_000),
    };
    let view = UpstreamView {
        name: "github".into(),
        breaker: vec![BreakerView {
            scope: "upstream".into(),
            state: BreakerState::Open,
            open_until: Some(reset),
            open_remaining_ms: Some(1),
            failure_ratio: 0.75,
            forced_reason: None,
            forced_until: None,
        }],
        quotas: vec![quota("core", 5000, 4000), quota("search", 30, 3)],
        in_flight: 3,
        queued: 4,
        queued_by_band: Default::default(),
        ..UpstreamView::default()
    };
    let process = ProcessView { draining: true, listeners: vec![("proxy".into(), 9)] };

    let text = scrape::text(&metrics, &[view], &[], &process);
    let later = scrape::text(&metrics, &[], &[], &ProcessView::default());

    for (series, expected) in [
        (r#"forbear_requests_in_flight{upstream="github"}"#, 7.0),
        (r#"forbear_ratelimit_limit{upstream="github"}"#, 30.0),
        (r#"forbear_ratelimit_remaining{upstream="github"}"#, 3.0),
        (r#"forbear_ratelimit_reset_timestamp_seconds{upstream="github"}"#, 1_768_471_200.5),
        (r#"forbear_breaker_state{breaker="upstream",state="open",upstream="github"}"#, 1.0),
        (r#"forbear_breaker_state{breaker="upstream",state="closed",upstream="github"}"#, 0.0),
        (r#"forbear_breaker_failure_ratio{breaker="upstream",upstream="github"}"#, 0.75),
        (r#"forbear_listener_connections{listener="proxy"}"#, 9.0),
        ("forbear_draining", 1.0),
    ] {
        assert_eq!(value(&text, series), Some(expected), "{series}\n{text}");
        assert!(value(&later, series).is_none_or(|value| value == 0.0), "{series}");
    }
    assert!(text.contains("process_start_time_seconds"));
}

#[test]
fn a_scrape_names_only_what_the_catalogue_declares_with_its_help_and_labels() {
    let metrics = Metrics::new();
    metrics.config_applied("abc", WallTime { unix_ms: 1 });
    metrics.upstream(&github()).exchange(&recovered());

    let text = text(&metrics);

    for line in text.lines().filter(|line| line.starts_with("# HELP forbear_")) {
        let declared =
            names::CATALOGUE.iter().any(|def| line == format!("# HELP {} {}", def.name, def.help));
        assert!(declared, "{line}");
    }
    assert_eq!(value(&text, r#"forbear_config_info{hash="abc"}"#), Some(1.0));
}
