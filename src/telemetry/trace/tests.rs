//! `traceparent` by the letter of the specification, and what becomes of it.

use super::*;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

fn field(version: &str, trace: &str, span: &str, flags: &str) -> String {
    format!("{version}-{trace}-{span}-{flags}")
}

fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&'static str, &str)| {
        (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
    };
    let mut headers = HeaderMap::new();
    fields.iter().map(pair).for_each(|(name, value)| {
        headers.append(name, value);
    });
    headers
}

fn tracer(sample: f64) -> (Tracer, IntCounter) {
    let dropped = IntCounter::new("dropped", "Dropped.").unwrap();
    (Tracer { sample, backlog: Backlog::new(dropped.clone()) }, dropped)
}

/// What the first attempt says, after forbear was a participant.
fn sent(tracer: &Tracer, fields: &[(&'static str, &str)]) -> (Trace, HeaderMap) {
    let mut headers = headers(fields);
    let trace = tracer.begin(&headers);
    trace.write(1, &mut headers);
    (trace, headers)
}

#[test]
fn a_valid_field_is_read_and_written_the_same() {
    for flags in ["00", "01", "02", "03"] {
        let text = field("00", TRACE, SPAN, flags);
        let read = TraceParent::parse(text.as_bytes()).unwrap();
        assert_eq!(read.to_string(), text);
        assert_eq!(read.is_sampled(), flags.ends_with(['1', '3']), "{flags}");
    }
}

#[test]
fn flags_that_nobody_knows_yet_are_not_passed_off_as_known() {
    let read = TraceParent::parse(field("00", TRACE, SPAN, "fd").as_bytes()).unwrap();
    assert!(read.is_sampled());
    assert!(read.to_string().ends_with("-01"));
}

#[test]
fn a_later_version_is_read_as_far_as_it_is_known_and_the_last_possible_one_is_none() {
    for version in ["01", "cc", "fe"] {
        let text = field(version, TRACE, SPAN, "01");
        for whole in [text.clone(), format!("{text}-"), format!("{text}-what-the-future-brings")] {
            let read = TraceParent::parse(whole.as_bytes()).unwrap();
            assert_eq!(read.to_string(), field("00", TRACE, SPAN, "01"), "of {whole}");
        }
        assert_eq!(TraceParent::parse(format!("{text}.").as_bytes()), None, "{version}");
        assert_eq!(TraceParent::parse(format!("{text}00").as_bytes()), None, "{version}");
    }
    assert_eq!(TraceParent::parse(field("ff", TRACE, SPAN, "01").as_bytes()), None);
}

#[test]
fn whatever_is_not_exactly_right_is_no_field_at_all() {
    let good = field("00", TRACE, SPAN, "01");
    let zeros = "0".repeat(32);
    let wrong = [
        String::new(),
        "00".into(),
        "-".repeat(55),
        "\u{e9}".repeat(30),
        field("00", &zeros, SPAN, "01"),
        field("00", TRACE, &zeros[..16], "01"),
        field("00", &TRACE.to_uppercase(), SPAN, "01"),
        field("00", TRACE, &SPAN.to_uppercase(), "01"),
        field("0g", TRACE, SPAN, "01"),
        field("00", TRACE, SPAN, "0x"),
        field("00", TRACE, SPAN, "+1"),
        field("00", &TRACE[1..], SPAN, "01"),
        field("00", TRACE, &SPAN[1..], "01"),
        field("00", &format!("{TRACE}0"), &SPAN[1..], "01"),
        field("0", TRACE, SPAN, "001"),
        format!(" {good}"),
        format!("{good} "),
        format!("{good}-"),
        format!("{good}-00"),
        good.replace('-', "_"),
        good.repeat(100),
    ];
    for text in wrong {
        assert_eq!(TraceParent::parse(text.as_bytes()), None, "{text:?}");
    }
    for cut in 0..good.len() {
        assert_eq!(TraceParent::parse(&good.as_bytes()[..cut]), None, "{cut} bytes");
    }
    assert_eq!(TraceParent::parse(&[0xff; 55]), None);
    let twice = headers(&[("traceparent", &good), ("traceparent", &good)]);
    assert_eq!(TraceParent::of(&twice), None, "nobody can tell which one is right");
}

#[test]
fn a_recorded_trace_goes_on_with_the_attempts_own_spans_and_the_callers_state() {
    let (tracer, _) = tracer(0.0);
    let caller = field("00", TRACE, SPAN, "03");
    let (trace, headers) = sent(&tracer, &[("traceparent", &caller), ("tracestate", "a=1,b=2")]);
    assert!(trace.is_recorded(), "the caller decides, not the setting");
    assert_eq!(trace.parent.unwrap().to_string(), SPAN);
    let expected = field("00", TRACE, &trace.attempt(1).to_string(), "03");
    assert_eq!(headers[TRACEPARENT], expected);
    assert_eq!(headers[TRACESTATE], "a=1,b=2");
    let spans = [trace.parent.unwrap(), trace.span, trace.attempt(1), trace.attempt(2)];
    for (at, span) in spans.iter().enumerate() {
        assert!(!spans[..at].contains(span), "{spans:?}");
    }
    let again = tracer.begin(&headers);
    assert_eq!((again.id, again.parent), (trace.id, Some(trace.attempt(1))));
}

#[test]
fn an_unsampled_trace_passes_as_it_is() {
    let (tracer, _) = tracer(1.0);
    let caller = field("00", TRACE, SPAN, "00");
    let (trace, headers) = sent(&tracer, &[("traceparent", &caller), ("tracestate", "a=1")]);
    assert!(!trace.is_recorded());
    assert_eq!(headers[TRACEPARENT], caller);
    assert_eq!(headers[TRACESTATE], "a=1");
}

#[test]
fn where_there_is_no_valid_parent_a_trace_begins_and_foreign_state_ends() {
    let (tracer, _) = tracer(1.0);
    let invalid = field("ff", TRACE, SPAN, "01");
    let cases: [&[(&'static str, &str)]; 3] =
        [&[], &[("tracestate", "a=1")], &[("traceparent", &invalid), ("tracestate", "a=1")]];
    for fields in cases {
        let (trace, headers) = sent(&tracer, fields);
        assert!(trace.is_recorded());
        assert_eq!(trace.parent, None);
        let read = TraceParent::of(&headers).unwrap();
        assert_eq!((read.trace, read.span), (trace.id, trace.attempt(1)));
        assert!(read.is_sampled());
        assert!(!headers.contains_key(TRACESTATE), "{fields:?}");
    }
}

#[test]
fn a_share_of_traces_is_recorded_and_the_others_say_that_they_are_not() {
    let (tracer, _) = tracer(0.0);
    let (trace, headers) = sent(&tracer, &[]);
    assert!(!trace.is_recorded());
    assert!(!TraceParent::of(&headers).unwrap().is_sampled());
}

#[test]
fn without_a_tracer_nothing_is_written() {
    let caller = field("00", TRACE, SPAN, "01");
    let mut fields = headers(&[("traceparent", &caller), ("tracestate", "a=1")]);
    let trace = Trace::seen(&fields).unwrap();
    trace.write(1, &mut fields);
    assert_eq!(trace.id.to_string(), TRACE);
    assert!(!trace.is_recorded());
    assert_eq!((&fields[TRACEPARENT], fields.len()), (&HeaderValue::from_str(&caller).unwrap(), 2));
    assert_eq!(Trace::seen(&HeaderMap::new()), None);
}

#[test]
fn a_backlog_that_nobody_empties_is_bounded_and_counts_what_it_drops() {
    let (tracer, dropped) = tracer(1.0);
    let mut story = crate::telemetry::tests::recovered();
    story.trace = Some(tracer.begin(&HeaderMap::new()));
    for _ in 0..BACKLOG_MAX + 3 {
        tracer.tell(&story, None);
    }
    assert_eq!(dropped.get(), 3);
    let mut taken = 0;
    for batch in std::iter::repeat_with(|| tracer.backlog.take()).take_while(|it| !it.is_empty()) {
        assert!(batch.len() <= BATCH_MAX);
        taken += batch.len();
    }
    assert_eq!(taken, BACKLOG_MAX);
}
