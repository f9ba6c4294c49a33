//! What the access log says of stories, and what it never says.

use super::super::access::AccessLogger;
use super::super::trace::Trace;
use super::super::writer::LogWriter;
use super::*;

/// What the access log writes about the stories.
fn access(settings: LogSettings, stories: &[Story]) -> String {
    let sink = Sink::default();
    let writer = LogWriter::start(sink.clone(), Metrics::new().log_lines_dropped).unwrap();
    let log = AccessLogger::new(settings, writer.clone());
    for story in stories {
        log.exchange(story);
    }
    assert!(writer.flush(Duration::from_secs(60)));
    sink.text()
}

#[test]
fn one_json_line_answers_why_an_exchange_took_so_long() {
    assert_eq!(
        access(LOG, &[recovered()]),
        concat!(
            r#"{"time":"2026-01-15T10:00:00.123Z","id":"01KF0HJ0BV0000000000000007","#,
            r#""upstream":"github","route":"search","method":"GET","path":"/search/issues","#,
            r#""status":200,"outcome":"ok","decision":"retried","attempts":["#,
            r#"{"n":1,"status":429,"class":"throttled","ms":100,"hint_ms":4000,"hint":"retry-after: 4"},"#,
            r#"{"n":2,"status":200,"class":"ok","ms":230}],"#,
            r#""waited_ms":{"cooldown":4010,"queue":12},"keys":["ingestion"],"flow":"nightly","#,
            r#""bytes_up":0,"bytes_down":812,"duration_ms":4353}"#,
            "\n"
        )
    );
}

#[test]
fn a_line_carries_the_ids_by_which_an_exchange_is_found_elsewhere() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let mut story = recovered();
    let mut headers = http::HeaderMap::new();
    let caller = format!("00-{TRACE}-00f067aa0ba902b7-00");
    headers.insert("traceparent", caller.parse().unwrap());
    story.trace = Trace::seen(&headers);
    story.run = Some("nightly-7".into());
    let json = access(LOG, std::slice::from_ref(&story));
    assert!(json.contains(&format!(r#""run":"nightly-7","trace_id":"{TRACE}""#)), "{json}");
    let text = access(LogSettings { format: LogFormat::Text, ..LOG }, &[story]);
    assert!(text.contains(&format!(" run=nightly-7 trace_id={TRACE} ")), "{text}");
}

#[test]
fn a_text_line_is_one_line_whatever_the_peer_sent_and_has_no_query() {
    let mut story = recovered();
    story.path = "/a\nb\u{1b}[2J?token=hunter2".into();
    story.flow = Some("x\u{202e}y z".into());

    let text = access(LogSettings { format: LogFormat::Text, ..LOG }, &[story]);

    assert!(text.starts_with("2026-01-15T10:00:00.123Z access status=200 outcome=ok"), "{text}");
    assert!(text.contains(r#"path="/a\nb\u{1b}[2J""#), "{text}");
    assert!(text.contains(r#"flow="x\u{202e}y z""#), "{text}");
    assert_eq!(text.matches('\n').count(), 1);
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn the_mode_failures_writes_what_failed_was_refused_or_was_repeated() {
    let mut plain = recovered();
    plain.attempts = vec![answered(1, 200, Class::Ok, 1)];
    let mut refused = plain.clone();
    refused.ending = Ending::Rejected("queue_full");
    let stories = [plain, refused, recovered()];

    for (which, lines) in [(AccessLog::All, 3), (AccessLog::Failures, 2), (AccessLog::Off, 0)] {
        let text = access(LogSettings { access: which, ..LOG }, &stories);
        assert_eq!(text.lines().count(), lines, "{which:?}");
    }
}
