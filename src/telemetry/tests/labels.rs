//! Whatever peers send, the number of series is bounded.

use super::*;
use crate::telemetry::view::KeyView;

#[test]
fn ten_thousand_paths_methods_keys_and_runs_leave_the_number_of_series_unchanged() {
    let metrics = Metrics::new();
    let handles = metrics.upstream(&github());
    let story = |n: usize| {
        let mut story = recovered();
        story.method = http::Method::from_bytes(format!("M{n}").as_bytes()).unwrap();
        story.path = format!("/{n}");
        story.keys = vec![format!("tenant:{n}").into()];
        story.flow = Some(format!("{n}").into());
        story.run = Some(format!("{n}").into());
        story.route = Some(format!("route-{n}").into());
        story.upstream = Some(format!("up-{n}").into());
        story
    };
    let view = |n: usize| KeyView {
        key: format!("tenant:{n}"),
        pattern: "tenant:*".into(),
        in_flight_max: 2,
        in_flight: 1,
        waiting: 1,
    };
    handles.exchange(&story(0));
    let scrape = |keys: &[KeyView]| scrape::text(&metrics, &[], keys, &ProcessView::default());
    let before = series(&scrape(&[view(0)]));

    for n in 0..10_000 {
        handles.exchange(&story(n));
    }

    let keys: Vec<_> = (0..10_000).map(view).collect();
    assert_eq!(series(&scrape(&keys)), before);
}

#[test]
fn an_upstream_that_plays_with_status_codes_gets_a_bounded_number_of_series() {
    let metrics = Metrics::new();
    let handles = metrics.upstream(&github());
    let exchange = |status: u16| {
        let mut story = recovered();
        story.status = status;
        story.attempts = vec![answered(1, status, Class::Ok, 1)];
        handles.exchange(&story);
    };
    for status in 100..400 {
        exchange(status);
    }
    let full = text(&metrics);

    for status in 400..600 {
        exchange(status);
    }

    let text = text(&metrics);
    assert_eq!(series(&text), series(&full));
    let requests = text.lines().filter(|line| line.starts_with("forbear_requests_total")).count();
    assert!(requests < 140, "{requests}");
    let folded = r#"forbear_requests_total{code="other",method="other",outcome="ok",route="search",upstream="github"}"#;
    assert!(value(&text, folded).is_some_and(|count| count > 300.0));
    let overflow = r#"forbear_metrics_label_overflow_total{label="code"}"#;
    assert!(value(&text, overflow).is_some_and(|count| count > 600.0));
}
