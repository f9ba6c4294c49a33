//! Set-up of `tracing`: which events become lines, and how a line looks.
//!
//! Both formats are written here, so that every value is escaped in one place: peers choose
//! header values, paths and error texts, and none of them may forge a line or drive a terminal.
//! Whether a value may be written at all is decided where the event is made: secrets have a type
//! that prints `***` ([`crate::config::secret::Secret`]).

use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, Layer};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;

use super::names::field;
use super::writer::{FLUSH_TIME_MAX, LogWriter};
use crate::config::settings::{LogFormat, LogLevel, LogSettings};

/// Where lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogTo {
    /// As containers expect it.
    Stdout,
    /// Beside a command whose output is somebody's data.
    Stderr,
}
/// Keeps the log alive; dropping it writes the last lines.
#[must_use = "dropping it ends the log"]
pub struct LogGuard(LogWriter);

impl LogGuard {
    /// For the access log, which shares the sink.
    pub fn writer(&self) -> LogWriter {
        self.0.clone()
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        self.0.flush(FLUSH_TIME_MAX);
    }
}

/// Sends this process's events to standard output. `dropped` counts lines that were dropped.
///
/// # Errors
/// When the writer's thread cannot be started, or a log was set up before.
pub fn start(
    settings: LogSettings,
    to: LogTo,
    dropped: prometheus::IntCounter,
) -> io::Result<LogGuard> {
    let (writer, coloured) = match to {
        LogTo::Stdout => (LogWriter::start(io::stdout(), dropped)?, io::stdout().is_terminal()),
        LogTo::Stderr => (LogWriter::start(io::stderr(), dropped)?, io::stderr().is_terminal()),
    };
    tracing::subscriber::set_global_default(subscriber(settings, writer.clone(), coloured))
        .map_err(io::Error::other)?;
    Ok(LogGuard(writer))
}

fn subscriber(
    settings: LogSettings,
    writer: LogWriter,
    coloured: bool,
) -> impl Subscriber + Send + Sync {
    let level = match settings.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let lines = Layer::default()
        .event_format(Lines(settings.format))
        .with_ansi(coloured && settings.format == LogFormat::Text)
        .with_writer(writer);
    tracing_subscriber::registry().with(level).with(lines)
}

/// One event, one line.
struct Lines(LogFormat);

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let level = event.metadata().level();
        let mut fields = Fields::default();
        event.record(&mut fields);
        match self.0 {
            LogFormat::Json => {
                let mut line = Map::new();
                line.insert(field::TIME.into(), time.into());
                line.insert(field::LEVEL.into(), level.as_str().into());
                line.insert(field::TARGET.into(), event.metadata().target().into());
                line.insert(field::MESSAGE.into(), fields.message.into());
                line.extend(fields.others);
                writeln!(out, "{}", Value::Object(line))
            }
            LogFormat::Text => {
                write!(out, "{time} ")?;
                if out.has_ansi_escapes() {
                    let style = anstyle::Style::new().fg_color(Some(colour(*level).into()));
                    write!(out, "{style}{level:>5}{style:#} ")?;
                } else {
                    write!(out, "{level:>5} ")?;
                }
                write!(out, "{}", Escaped(&fields.message))?;
                for (name, value) in &fields.others {
                    write!(out, " {name}={}", TextValue(value))?;
                }
                writeln!(out)
            }
        }
    }
}

fn colour(level: Level) -> anstyle::AnsiColor {
    match level {
        Level::ERROR => anstyle::AnsiColor::Red,
        Level::WARN => anstyle::AnsiColor::Yellow,
        Level::INFO => anstyle::AnsiColor::Green,
        Level::DEBUG => anstyle::AnsiColor::Blue,
        Level::TRACE => anstyle::AnsiColor::Magenta,
    }
}

/// The fields of an event, in the order of their names.
#[derive(Default)]
struct Fields {
    message: String,
    others: Map<String, Value>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        self.others.insert(field.name().to_owned(), value);
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == field::MESSAGE {
            // Writing into a string cannot fail, except for a Debug that gives up; then less is shown.
            let _ = write!(self.message, "{value:?}");
        } else {
            self.put(field, format!("{value:?}").into());
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == field::MESSAGE {
            self.message.push_str(value);
        } else {
            self.put(field, value.into());
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }
}

/// Text whose control characters, bidirectional overrides and the like are made visible.
pub(super) struct Escaped<'a>(pub(super) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '"' | '\'' | '\\' => f.write_char(c)?,
                other => write!(f, "{}", other.escape_debug())?,
            }
        }
        Ok(())
    }
}

/// A value as `key=value` text: bare where that is clear, quoted and escaped otherwise.
pub(super) struct TextValue<'a>(pub(super) &'a Value);

impl fmt::Display for TextValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::String(text) => {
                let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '=' | '\\');
                if !text.is_empty() && text.chars().all(plain) {
                    f.write_str(text)
                } else {
                    write!(f, "{text:?}")
                }
            }
            // JSON leaves DEL, C1 controls and the like as they are.
            structured @ (Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Array(_)
            | Value::Object(_)) => write!(f, "{}", Escaped(&structured.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::secret::Secret;
    use crate::config::settings::AccessLog;
    use crate::telemetry::tests::Sink;
    use prometheus::IntCounter;
    use std::time::Duration;

    /// What is written while `events` runs, without the time at the start.
    fn written(format: LogFormat, events: impl FnOnce()) -> String {
        let sink = Sink::default();
        let dropped = IntCounter::new("dropped", "Dropped.").unwrap();
        let writer = LogWriter::start(sink.clone(), dropped).unwrap();
        let settings = LogSettings { format, level: LogLevel::Info, access: AccessLog::Off };
        tracing::subscriber::with_default(subscriber(settings, writer.clone(), false), events);
        assert!(writer.flush(Duration::from_secs(60)));
        sink.text()
    }

    #[test]
    fn a_text_line_tells_level_message_and_fields() {
        let text = written(LogFormat::Text, || {
            tracing::warn!(upstream = "github", wait_ms = 12, said = "not now", "holding back");
            tracing::debug!("not at this level");
        });

        let (time, rest) = text.split_once(' ').unwrap();
        assert!(time.ends_with('Z') && time.contains('T'), "{time}");
        assert_eq!(rest, " WARN holding back said=\"not now\" upstream=github wait_ms=12\n");
    }

    #[test]
    fn a_json_line_is_one_object_with_the_same_fields() {
        let text = written(LogFormat::Json, || tracing::info!(upstream = "github", "opened"));

        let line: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["message"], "opened");
        assert_eq!(line["upstream"], "github");
        assert_eq!(line["level"], "INFO");
        assert!(line["time"].as_str().unwrap().ends_with('Z'));
    }

    #[test]
    fn a_peer_can_neither_forge_a_line_nor_drive_a_terminal() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let evil = "a\nb\u{1b}[2Jc\r\u{9b}d\u{202e}e";
            let text = written(format, || tracing::info!(evil, "said {evil}"));

            assert_eq!(text.matches('\n').count(), 1, "{text:?}");
            assert!(!text.contains(['\r', '\u{1b}']), "{text:?}");
            if format == LogFormat::Text {
                assert!(!text.contains(['\u{9b}', '\u{202e}']), "{text:?}");
            }
        }
    }

    #[test]
    fn a_secret_is_not_written_whatever_the_format() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let secret = Secret::new("hunter2");
            let text = written(format, || tracing::info!(?secret, "token {secret}"));

            assert!(text.contains("***") && !text.contains("hunter2"), "{text}");
        }
    }
}
