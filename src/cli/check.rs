//! `forbear check` and `forbear schema`: what a configuration means, or why it means nothing.
//!
//! Everything goes through `anstream`, which keeps colours for terminals.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use serde_json::json;

use super::EXIT_USAGE;
use crate::config::problem::{Problem, Problems, Severity};
use crate::config::{EffectiveValue, Loaded, load, process_environment, schema as config_schema};

/// Checks a file and prints all problems, or a summary and, if wanted, every value in force.
/// The exit code is 0 or 2.
pub fn check(path: &Path, effective: bool, json: bool) -> ExitCode {
    let loaded = load(path, &process_environment);
    let mut out = anstream::stdout();
    let written = if json {
        write_json(&mut out, &loaded, effective)
    } else {
        write_text(&mut out, path, &loaded, effective)
    };
    exit_code(&written, &loaded)
}

/// Prints problems to standard error, for a command that cannot begin.
pub(super) fn print_problems(Problems(problems): &Problems) {
    let mut out = anstream::stderr();
    for problem in problems {
        // The exit code has to do if not even this can be written.
        let _ = writeln!(out, "{}", problem.render(Severity::Error));
    }
    let _ = writeln!(out, "{}.", counted(problems.len(), "problem"));
}

/// 0 or 2 for the configuration; 1 if the answer could not be written.
fn exit_code(written: &io::Result<()>, loaded: &Result<Loaded, Problems>) -> ExitCode {
    match (written, loaded) {
        (_, Err(_)) => ExitCode::from(EXIT_USAGE),
        (Ok(()), Ok(_)) => ExitCode::SUCCESS,
        // Whoever reads may stop early: `check --effective | head`.
        (Err(error), Ok(_)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        (Err(_), Ok(_)) => ExitCode::FAILURE,
    }
}

/// Prints the JSON Schema of the configuration.
pub fn schema() -> ExitCode {
    match writeln!(anstream::stdout(), "{:#}", config_schema::schema()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn write_text(
    out: &mut impl Write,
    path: &Path,
    loaded: &Result<Loaded, Problems>,
    effective: bool,
) -> io::Result<()> {
    match loaded {
        Ok(loaded) => {
            for warning in &loaded.warnings {
                writeln!(out, "{}", warning.render(Severity::Warning))?;
            }
            if effective {
                write_effective(out, &loaded.effective)?;
            }
            writeln!(out, "{}", summary(path, loaded))
        }
        Err(Problems(problems)) => {
            for problem in problems {
                writeln!(out, "{}", problem.render(Severity::Error))?;
            }
            writeln!(out, "{}.", counted(problems.len(), "problem"))
        }
    }
}

fn write_json(
    out: &mut impl Write,
    loaded: &Result<Loaded, Problems>,
    effective: bool,
) -> io::Result<()> {
    let none: &[Problem] = &[];
    let value = match loaded {
        Ok(loaded) if effective => {
            json!({ "ok": true, "problems": none, "warnings": loaded.warnings, "effective": loaded.effective })
        }
        Ok(loaded) => json!({ "ok": true, "problems": none, "warnings": loaded.warnings }),
        Err(problems) => json!({ "ok": false, "problems": problems, "warnings": none }),
    };
    writeln!(out, "{value:#}")
}

/// `path = value   # origin`, with the equals signs and the origins each in one column.
fn write_effective(out: &mut impl Write, values: &[EffectiveValue]) -> io::Result<()> {
    let width = |of: fn(&EffectiveValue) -> &str| {
        values
            .iter()
            .map(|value| of(value).chars().count())
            .filter(|width| *width <= COLUMN_MAX)
            .max()
            .unwrap_or(0)
    };
    let (paths, texts) = (width(|value| &value.path), width(|value| &value.value));
    for EffectiveValue { path, value, origin } in values {
        writeln!(out, "{path:paths$} = {value:texts$}   # {origin}")?;
    }
    writeln!(out)
}

/// One long value must not push all origins off the screen.
const COLUMN_MAX: usize = 60;

/// `config.toml: fine. 2 upstreams, 1 key, proxy on 127.0.0.1:8080.`
fn summary(path: &Path, loaded: &Loaded) -> String {
    let settings = &loaded.settings;
    let upstreams = counted(settings.upstreams.len(), "upstream");
    let keys = match settings.limits.keys.len() {
        0 => String::new(),
        keys => format!("{}, ", counted(keys, "key")),
    };
    let listen: Vec<String> = settings.proxy.listen.iter().map(ToString::to_string).collect();
    format!("{}: fine. {upstreams}, {keys}proxy on {}.", path.display(), listen.join(" and "))
}

fn counted(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load_str;

    const TWO: &str = "[keys.one]\nin_flight_max = 1\n[upstreams.a]\nurl = \"https://a.example\"\n\
                       [upstreams.b]\nurl = \"https://b.example\"\nmax_wait = \"2m\"\n";

    fn text_of(text: &str, effective: bool) -> String {
        let mut out = Vec::new();
        let loaded = load_str(text, "config.toml", &|_| None);
        write_text(&mut out, Path::new("config.toml"), &loaded, effective).unwrap();
        anstream::adapter::strip_str(&String::from_utf8(out).unwrap()).to_string()
    }

    #[test]
    fn a_good_file_is_summed_up_in_one_line() {
        assert_eq!(
            text_of(TWO, false),
            "config.toml: fine. 2 upstreams, 1 key, proxy on 127.0.0.1:8080.\n"
        );
    }

    #[test]
    fn problems_are_shown_and_counted() {
        let text = text_of("[upstreams.a]\nurl = \"a\"\nmax_wait = 1\n", false);
        assert!(text.starts_with("config.toml:2:7: upstreams.a.url: "), "{text}");
        assert!(text.ends_with("\n\n2 problems.\n"), "{text}");
    }

    #[test]
    fn effective_values_stand_in_columns_with_their_origins() {
        let text = text_of(TWO, true);
        let line = |path: &str| text.lines().find(|line| line.starts_with(path)).unwrap();
        let (typed, default) = (line("upstreams.b.max_wait "), line("upstreams.a.max_wait "));
        assert!(typed.ends_with("   # config.toml:7:12"), "{typed}");
        assert!(default.contains(" = \"50s\" ") && default.ends_with("   # default"), "{default}");
        assert_eq!((typed.find('='), typed.find('#')), (default.find('='), default.find('#')));
    }

    #[test]
    fn json_has_problems_with_their_positions() {
        let mut out = Vec::new();
        write_json(&mut out, &load_str("[upstreams.a]\n", "config.toml", &|_| None), false)
            .unwrap();
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(value["ok"], false);
        assert_eq!(value["problems"][0]["setting"], "upstreams.a.url");
        assert_eq!(
            (&value["problems"][0]["line"], &value["problems"][0]["column"]),
            (&json!(1), &json!(12))
        );
    }

    #[test]
    fn the_exit_code_tells_good_from_bad() {
        for (text, broken_pipe, expected) in [
            (TWO, false, ExitCode::SUCCESS),
            (TWO, true, ExitCode::SUCCESS),
            ("", false, ExitCode::from(2)),
            ("", true, ExitCode::from(2)),
        ] {
            let written = if broken_pipe { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) };
            let code = exit_code(&written, &load_str(text, "config.toml", &|_| None));
            assert_eq!(format!("{code:?}"), format!("{expected:?}"), "{text}");
        }
    }
}
