//! Where a value comes from: the nearest table that has it, else the built-in default.
//!
//! A route asks itself, its upstream, `[defaults]`, and then the declaration. Whatever is asked
//! for is written down with its origin, so `check --effective` prints what was really used.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

use super::address::Url;
use super::problem::{Fault, Notes, Span};
use super::read::{Given, Section, join};
use super::settings::RouteMatch;
use super::spec::{self, Setting};
use super::value::Value;

/// A value in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EffectiveValue {
    /// `upstreams.github.retry.attempts_max`.
    pub path: String,
    /// As it would be typed; secrets as `***`.
    pub value: String,
    /// `default`, `config.toml:12:3`, or `[defaults] config.toml:12:3`.
    pub origin: String,
}

/// A table together with those that it inherits from.
#[derive(Clone, Debug)]
pub(super) struct Scope<'a> {
    pub(super) path: String,
    /// Where to point when a setting is not there.
    pub(super) span: Span,
    /// The nearest first.
    layers: Vec<&'a Section>,
    /// Declarations with the built-in defaults.
    known: &'static [Setting],
}

impl<'a> Scope<'a> {
    /// A table of the top level, which may be absent.
    pub(super) fn top(root: &'a Section, name: &'static str) -> Self {
        let whole = Self { path: String::new(), span: 0..0, layers: vec![root], known: spec::ROOT };
        whole.table(name)
    }

    /// `layers` inherit from left to right; `known` is the declaration of the last of them.
    pub(super) fn new(
        section: &'a Section,
        inherited: &[&'a Section],
        known: &'static [Setting],
    ) -> Self {
        let layers = std::iter::once(section).chain(inherited.iter().copied()).collect();
        Self { path: section.path.clone(), span: section.span.clone(), layers, known }
    }

    /// A table within, with the same inheritance.
    pub(super) fn table(&self, name: &'static str) -> Self {
        let layers: Vec<_> =
            self.layers.iter().filter_map(|layer| layer.tables.get(name)).collect();
        let known = spec::find(self.known, name).map_or(&[][..], Setting::entries);
        let path = join(&self.path, name);
        let own = layers.first().filter(|layer| layer.path == path);
        let span = own.map_or_else(|| self.span.clone(), |own| own.span.clone());
        Self { path, span, layers, known }
    }

    /// Whether the table itself, not only one that it inherits from, was typed.
    pub(super) fn is_typed(&self) -> bool {
        self.layers.first().is_some_and(|layer| layer.path == self.path)
    }

    /// Where a setting was typed, and how many tables away that is.
    fn nearest(&self, name: &str) -> Option<(usize, &'a Section, &'a Given)> {
        let mut layers = self.layers.iter().enumerate();
        layers.find_map(|(depth, layer)| layer.values.get(name).map(|given| (depth, *layer, given)))
    }

    /// How far away a setting was typed; `None` if nowhere.
    pub(super) fn depth(&self, name: &str) -> Option<usize> {
        self.nearest(name).map(|(depth, ..)| depth)
    }

    /// The value without writing it down: `None` also if it was wrong.
    pub(super) fn peek(&self, name: &str) -> Option<Value> {
        match self.nearest(name) {
            Some((_, _, given)) => given.value.clone(),
            None => {
                let setting = spec::find(self.known, name)?;
                setting.kind.read_default(setting.default?).ok()
            }
        }
    }

    /// As [`Self::peek`], in the type that its kind promises.
    pub(super) fn peek_as<T: FromValue>(&self, name: &str) -> Option<T> {
        self.peek(name).and_then(T::from_value)
    }

    /// Path and position of a setting as it was typed, or else of the table it would stand in.
    pub(super) fn place(&self, name: &str) -> (String, Span) {
        match self.nearest(name) {
            Some((_, layer, given)) => (join(&layer.path, name), given.span.clone()),
            None => (join(&self.path, name), self.span.clone()),
        }
    }
}

/// What resolving needs besides the sections: where to note problems and values.
pub(super) struct Resolver<'n, 's> {
    pub(super) notes: &'n mut Notes<'s>,
    pub(super) effective: Vec<EffectiveValue>,
}

impl Resolver<'_, '_> {
    /// The value of an optional setting; written down if there is one.
    pub(super) fn optional<T: FromValue>(&mut self, scope: &Scope<'_>, name: &str) -> Option<T> {
        debug_assert!(
            spec::find(scope.known, name).is_some(),
            "{name} is not declared in {}",
            scope.path
        );
        let value = scope.peek(name)?;
        let origin = match scope.nearest(name) {
            Some((_, layer, given)) => {
                let place = self.notes.place(&given.span);
                if layer.path == scope.path { place } else { format!("[{}] {place}", layer.path) }
            }
            None => "default".into(),
        };
        // Somebody may type the secret itself into what stands before it.
        let holds_secret = scope.path.ends_with(".credential") || scope.path.contains(".headers.");
        let secret = holds_secret && name == "prefix";
        let shown = if secret { "***".into() } else { value.print() };
        self.effective.push(EffectiveValue { path: join(&scope.path, name), value: shown, origin });
        T::from_value(value)
    }

    /// The value of a setting that has a default or is required. After a problem it is anything,
    /// as no settings come out then.
    pub(super) fn value<T: FromValue + Default>(&mut self, scope: &Scope<'_>, name: &str) -> T {
        self.optional(scope, name).unwrap_or_default()
    }

    /// The value of a choice, by its word.
    pub(super) fn choice<T: Copy>(
        &mut self,
        scope: &Scope<'_>,
        name: &str,
        first: T,
        others: &[(&str, T)],
    ) -> T {
        let word: String = self.value(scope, name);
        others.iter().find(|(other, _)| *other == word).map_or(first, |(_, value)| *value)
    }

    /// Notes that a setting contradicts another one.
    pub(super) fn contradiction(&mut self, scope: &Scope<'_>, name: &str, fault: Fault) {
        let (path, span) = scope.place(name);
        let found = scope.peek(name).map(|value| value.print());
        self.notes.problem(&span, &path, found, fault);
    }
}

/// Takes a value of the type that its kind promises.
pub(super) trait FromValue: Sized {
    fn from_value(value: Value) -> Option<Self>;
}

/// One line per type: the variant that carries it.
macro_rules! from_value {
    ($($variant:ident => $type:ty),* $(,)?) => {
        $(impl FromValue for $type {
            fn from_value(value: Value) -> Option<Self> {
                if let Value::$variant(value) = value { Some(value) } else { None }
            }
        })*
    };
}

from_value! {
    Duration => Duration,
    Durations => Vec<Duration>,
    Share => f64,
    Flag => bool,
    Text => String,
    Addresses => Vec<SocketAddr>,
    Url => Url,
    Hosts => Vec<String>,
    Match => RouteMatch,
}

impl FromValue for u64 {
    fn from_value(value: Value) -> Option<Self> {
        match value {
            Value::Count(number) | Value::Size(number) => Some(number),
            Value::Duration(_)
            | Value::Durations(_)
            | Value::Share(_)
            | Value::Flag(_)
            | Value::Text(_)
            | Value::Addresses(_)
            | Value::Url(_)
            | Value::Hosts(_)
            | Value::Match(_) => None,
        }
    }
}

impl FromValue for u32 {
    fn from_value(value: Value) -> Option<Self> {
        u64::from_value(value).and_then(|number| Self::try_from(number).ok())
    }
}
