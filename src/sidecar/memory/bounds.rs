//! What of the kept state may still hold: nothing lasts longer than it can have been meant, and an
//! override by hand is not lost without a word.
//!
//! Whoever edits the file, sets the clock or moves the file to another machine can leave an end in
//! it that no answer and no person ever named.

use std::time::Duration;

use super::{BREAKER, LOCK, SAME_TIME};
use crate::gateway::Gateway;
use crate::gateway::view::url_of;
use crate::policy::breaker::Circuit;
use crate::policy::hints::WAIT_MAX;
use crate::policy::settings::UpstreamSettings;
use crate::policy::time::{MonoTime, TimeAnchor, WallTime};
use crate::policy::upstream::LOCKED_FOR_MAX;
use crate::store::state::{StateKey, StateRows, StateValue};
use crate::telemetry::names;

/// Margins and jitter come on top of what was told.
const MARGIN: Duration = Duration::from_secs(60);

/// When it ends. No span is longer than it was when it began, whatever the clock shows, nor longer
/// than its kind can be.
pub(super) fn remaining(
    key: &StateKey,
    value: &StateValue,
    until: WallTime,
    anchor: TimeAnchor,
    settings: &UpstreamSettings,
) -> MonoTime {
    let StateKey { upstream, kind, scope } = key;
    let mut left = until.since(anchor.wall);
    let span = value.since.map_or(Duration::MAX, |since| until.since(since));
    if left > span + SAME_TIME {
        let (left_s, span_s) = (left.as_secs(), span.as_secs());
        tracing::warn!(
            upstream,
            kind,
            scope,
            left_s,
            span_s,
            "what was kept ends later than it can: the clock was set back; cut"
        );
    }
    left = left.min(span);
    let (plausible, cut_to) = longest(key, value, settings);
    if left > plausible.saturating_add(MARGIN) {
        let (left_s, cut_to_s) = (left.as_secs(), cut_to.as_secs());
        tracing::warn!(
            upstream,
            kind,
            scope,
            left_s,
            cut_to_s,
            "what was kept lasts longer than anybody can have meant; cut"
        );
        left = cut_to;
    }
    // The wall was read in whole milliseconds, and nobody may go earlier than told.
    anchor.mono + left + Duration::from_millis(1)
}

/// How long such a thing lasts at most, and what is made of one that lasts longer.
fn longest(
    key: &StateKey,
    value: &StateValue,
    settings: &UpstreamSettings,
) -> (Duration, Duration) {
    match key.kind.as_str() {
        LOCK => (LOCKED_FOR_MAX, LOCKED_FOR_MAX),
        BREAKER if !is_forced(value) => {
            let own = names::route_of_breaker(&key.scope).and_then(|name| {
                settings.routes.iter().find(|route| *route.name == *name)?.breaker.as_ref()
            });
            let open_for_max = own.unwrap_or(&settings.breaker).open_for_max;
            // The upstream may have named a longer time than the configuration does.
            (open_for_max.max(WAIT_MAX), open_for_max)
        }
        // Whatever was told is cut to this when it is read; a person is held to it too.
        _ => (WAIT_MAX, WAIT_MAX),
    }
}

/// Says which breakers are held by hand according to the file and are not any more, because their
/// upstream or route has another name or origin now: a person relies on them.
pub(super) fn warn_of_lost_overrides(gateway: &Gateway, saved: &StateRows, now: WallTime) {
    for (key, value) in lost_overrides(gateway, saved, now) {
        let StateKey { upstream, scope, .. } = key;
        let text = |name| value.data.get(name).and_then(serde_json::Value::as_str);
        tracing::warn!(
            upstream,
            scope,
            origin = value.origin,
            state = text("state"),
            reason = text("reason"),
            "a breaker held by hand is not held any more: its upstream or route was renamed, removed \
             or leads elsewhere now"
        );
    }
}

fn lost_overrides<'s>(
    gateway: &'s Gateway,
    saved: &'s StateRows,
    now: WallTime,
) -> impl Iterator<Item = (&'s StateKey, &'s StateValue)> {
    let is_held = move |value: &StateValue| {
        is_forced(value) && value.until.is_some_and(|until| until.unix_ms > now.unix_ms)
    };
    let applies = |key: &StateKey, value: &StateValue| {
        gateway.upstreams.iter().any(|upstream| {
            let config = &upstream.config;
            let has_breaker = names::route_of_breaker(&key.scope).is_none_or(|name| {
                let mut routes = config.policy.routes.iter();
                routes.any(|route| *route.name == *name && route.breaker.is_some())
            });
            *config.name == *key.upstream && url_of(config) == value.origin && has_breaker
        })
    };
    saved
        .iter()
        .filter(move |(key, value)| key.kind == BREAKER && is_held(value) && !applies(key, value))
}

fn is_forced(value: &StateValue) -> bool {
    let state = value.data.get("state").and_then(serde_json::Value::as_str);
    let (until, forced) = (MonoTime::ZERO, |circuit: Circuit| circuit.name().name());
    let by_hand = [forced(Circuit::ForcedOpen { until }), forced(Circuit::ForcedClosed { until })];
    state.is_some_and(|state| by_hand.contains(&state))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::sidecar::memory::tests::{NOW, gateway};
    use crate::sidecar::memory::{COOLDOWN, QUOTA};

    /// Of the upstream; begun and to end so many seconds from now.
    fn row(kind: &str, state: &str, since_s: i64, left_s: i64) -> (StateKey, StateValue) {
        let at = |s: i64| Some(WallTime { unix_ms: NOW.unix_ms + s * 1000 });
        let (upstream, scope) = ("api".to_owned(), "upstream".to_owned());
        let key = StateKey { upstream, kind: kind.to_owned(), scope };
        let origin = "http://a.example".to_owned();
        let data = json!({ "state": state, "reason": "maintenance" });
        (key, StateValue { origin, since: at(since_s), until: at(left_s), data })
    }

    #[test]
    fn no_end_is_later_than_anybody_can_have_meant() {
        let gateway = gateway();
        let settings = &gateway.upstreams[0].config.policy;
        let anchor = TimeAnchor { mono: MonoTime::ZERO, wall: NOW };
        let (day, far) = (86_400, 4_000_000_000);
        for (kind, state, left_s, expected_s) in [
            (COOLDOWN, "", far, 31 * day),
            (COOLDOWN, "", 31 * day + 2, 31 * day + 2),
            (QUOTA, "", far, 31 * day),
            (LOCK, "", far, 900),
            (LOCK, "", 899, 899),
            (BREAKER, "open", far, 300),
            // An upstream may say so.
            (BREAKER, "open", 7_200, 7_200),
            (BREAKER, "forced_open", 7_200, 7_200),
            (BREAKER, "forced_closed", far, 31 * day),
        ] {
            let (key, value) = row(kind, state, -10, left_s);
            let ends = remaining(&key, &value, value.until.unwrap(), anchor, settings);
            let expected =
                Duration::from_secs(u64::try_from(expected_s).unwrap()) + Duration::from_millis(1);
            assert_eq!(ends.since(MonoTime::ZERO), expected, "{kind} {state} {left_s}");
        }
    }

    #[test]
    fn an_override_that_does_not_apply_any_more_is_named() {
        let gateway = gateway();
        let lost = |change: fn(&mut StateKey, &mut StateValue)| {
            let (mut key, mut value) = row(BREAKER, "forced_open", -10, 600);
            change(&mut key, &mut value);
            let saved = StateRows::from([(key, value)]);
            lost_overrides(&gateway, &saved, NOW).count()
        };
        assert_eq!(lost(|_, _| ()), 0);
        assert_eq!(lost(|_, value| value.origin = "http://b.example".to_owned()), 1);
        assert_eq!(lost(|key, _| key.upstream = "old".to_owned()), 1);
        assert_eq!(lost(|key, _| key.scope = names::breaker_of_route("search")), 1);
        // Nobody misses what has ended, nor what nobody ordered.
        assert_eq!(lost(|_, value| (value.origin, value.until) = (String::new(), Some(NOW))), 0);
        assert_eq!(
            lost(
                |_, value| (value.origin, value.data) = (String::new(), json!({ "state": "open" }))
            ),
            0
        );
    }
}
