//! The pages that people read say what the program does.

use std::path::Path;

use forbear::config;

use crate::support::binary::{forbear, out};

fn page(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn the_reference_configuration_is_one_that_can_be_used() {
    let loaded = config::load_str(&page("config.toml"), "config.toml", &|_| None);
    let loaded = loaded.unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(loaded.settings.upstreams.len(), 1);
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
}

#[tokio::test]
async fn the_readme_lists_every_command() {
    let readme = page("README.md");
    let help = out(&forbear(["--help"]).await);
    let commands = help.lines().skip_while(|line| !line.starts_with("Commands:")).skip(1);
    let commands = commands.take_while(|line| line.starts_with("  "));
    let names: Vec<_> = commands
        .filter(|line| !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    assert!(names.contains(&"run") && names.len() >= 9, "{names:?} in:\n{help}");
    let missing: Vec<_> =
        names.iter().filter(|name| !readme.contains(&format!("forbear {name}"))).collect();
    assert!(missing.is_empty(), "README.md does not tell of {missing:?}");
}
