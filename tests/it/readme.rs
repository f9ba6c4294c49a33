//! The README against the program: its tables are complete, and its examples are accepted.

use forbear::config;
use forbear::proxy::reject::Code;
use forbear::telemetry::names::CATALOGUE;

const README: &str = include_str!("../../README.md");

#[test]
fn every_refusal_has_its_row_with_status_and_verdict() {
    for code in Code::ALL {
        let (name, status, verdict) = (code.name(), code.status(), code.verdict().name());
        let row = format!("| `{name}` | {} | {verdict} | ", status.as_u16());
        assert!(README.contains(&row), "README.md needs a row that begins with {row}");
    }
}

#[test]
fn every_metric_has_its_row_with_labels_and_meaning() {
    for metric in CATALOGUE {
        let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let row = format!("| `{}` | {} | {} |\n", metric.name, labels.join(", "), metric.help);
        assert!(README.contains(&row), "README.md needs the row {row}");
    }
}

#[test]
fn every_configuration_in_it_is_accepted() {
    let blocks: Vec<&str> =
        README.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(blocks.len() >= 6, "{} examples", blocks.len());
    for block in blocks {
        // The secrets are not on this machine: they come from the environment instead.
        let mut text = String::new();
        for line in block.lines() {
            match line.split_once(".file = ") {
                Some((name, _)) => text.push_str(&format!("{name}.env = \"SECRET\"\n")),
                None => text.push_str(&format!("{line}\n")),
            }
        }
        if !text.contains("[upstreams.") {
            text.push_str("[upstreams.github]\nurl = \"https://api.github.com\"\n");
        }
        let environment = |_: &str| Some("long-enough-to-be-a-secret".to_owned());
        if let Err(problems) = config::load_str(&text, "README.md", &environment) {
            panic!("{problems}\n{text}");
        }
    }
}
