//! The JSON Schema of the configuration, for editors: made from the declarations, so it knows
//! exactly the settings that are read.

use serde_json::{Map, Value, json};

use super::kind::{Kind, NameRule};
use super::spec::{self, Setting};
use super::units::{DURATION_PATTERN, SIZE_PATTERN};

/// The schema, in the dialect of 2020-12.
pub fn schema() -> Value {
    let mut schema = table(spec::ROOT);
    if let Some(root) = schema.as_object_mut() {
        root.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
        root.insert("title".into(), "forbear configuration".into());
    }
    schema
}

fn table(settings: &[Setting]) -> Value {
    let properties: Map<String, Value> =
        settings.iter().map(|setting| (setting.name.to_owned(), property(setting))).collect();
    let required: Vec<&str> =
        settings.iter().filter(|setting| setting.required).map(|setting| setting.name).collect();
    let mut schema =
        json!({ "type": "object", "properties": properties, "additionalProperties": false });
    if let (Some(schema), false) = (schema.as_object_mut(), required.is_empty()) {
        schema.insert("required".into(), json!(required));
    }
    schema
}

fn property(setting: &Setting) -> Value {
    let mut schema = kind(setting.kind);
    if let Some(schema) = schema.as_object_mut() {
        schema.insert("description".into(), setting.doc.into());
        if let Some(default) = setting.default {
            schema.insert("default".into(), default_value(setting.kind, default));
        }
    }
    schema
}

/// Numbers and flags as such, everything else as text.
fn default_value(kind: Kind, default: &str) -> Value {
    let bare = matches!(kind, Kind::Count { .. } | Kind::Share { .. } | Kind::Flag);
    let number = bare.then(|| serde_json::from_str(default).ok()).flatten();
    number.unwrap_or_else(|| default.into())
}

fn kind(kind: Kind) -> Value {
    let one_or_more =
        |item: Value| json!({ "oneOf": [item, { "type": "array", "items": item, "minItems": 1 }] });
    let share = |zero: bool| {
        let bound = if zero { "minimum" } else { "exclusiveMinimum" };
        json!({ "type": "number", bound: 0, "maximum": 1 })
    };
    match kind {
        Kind::Duration { .. } => json!({ "type": "string", "pattern": DURATION_PATTERN }),
        Kind::Durations => {
            let item = json!({ "type": "string", "pattern": DURATION_PATTERN });
            json!({ "type": "array", "items": item, "minItems": 1 })
        }
        Kind::Size => json!({ "type": "string", "pattern": SIZE_PATTERN }),
        Kind::Count { min, max, .. } => {
            json!({ "type": "integer", "minimum": min, "maximum": max })
        }
        Kind::Share { zero, off: false } => share(zero),
        Kind::Share { zero, off: true } => json!({ "oneOf": [share(zero), { "const": "off" }] }),
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Text | Kind::Header | Kind::Address => json!({ "type": "string", "minLength": 1 }),
        Kind::Prefix => json!({ "type": "string" }),
        Kind::Choice(words) => json!({ "enum": words }),
        Kind::Workers => {
            json!({ "oneOf": [{ "const": "auto" }, { "type": "integer", "minimum": 1, "maximum": 256 }] })
        }
        Kind::Name => json!({ "type": "string", "pattern": NAME_PATTERN }),
        Kind::Addresses | Kind::Hosts => one_or_more(json!({ "type": "string", "minLength": 1 })),
        Kind::Url => {
            json!({ "type": "string", "pattern": "^[hH][tT][tT][pP][sS]?://[^/?#@]+(/[^?#]*)?$" })
        }
        Kind::PathPrefix => json!({ "type": "string", "pattern": "^/([^/?#%]+(/[^/?#%]+)*)?$" }),
        Kind::Match => json!({ "type": "string", "pattern": "^([A-Z-]+ )?/" }),
        Kind::Table(settings) => table(settings),
        Kind::Named(rule, settings) => {
            let pattern = match rule {
                NameRule::Plain => NAME_PATTERN,
                NameRule::Key => "^[A-Za-z0-9][A-Za-z0-9._:-]*(:\\*)?$",
            };
            json!({
                "type": "object",
                "propertyNames": { "pattern": pattern },
                "additionalProperties": table(settings),
            })
        }
        Kind::List(settings) => json!({ "type": "array", "items": table(settings) }),
    }
}

const NAME_PATTERN: &str = "^[a-z0-9][a-z0-9_-]*$";
