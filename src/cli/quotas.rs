//! The quotas of `forbear status`: a bar, what is left, and when it is renewed.

use anstyle::{AnsiColor, Style};

use super::status::{Cell, SCOPES_SHOWN_MAX, header, span};
use crate::config::process_environment;
use crate::telemetry::view::{QuotaView, UpstreamView};

/// Tenths are enough for a glance.
const BAR_WIDTH: u64 = 10;

/// What a bar is drawn with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bars {
    /// `████████░░`
    Blocks,
    /// `########--`, where blocks would not arrive as such: files, pipes, old terminals.
    Ascii,
}

impl Bars {
    /// As whoever reads it can show them.
    pub(super) fn fitting(is_terminal: bool) -> Self {
        // POSIX: the first of these that is set and not empty decides.
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
            .into_iter()
            .find_map(|name| process_environment(name).filter(|value| !value.is_empty()));
        let locale = locale.unwrap_or_default().to_ascii_lowercase();
        let is_utf8 = locale.contains("utf-8") || locale.contains("utf8");
        if is_terminal && is_utf8 { Self::Blocks } else { Self::Ascii }
    }

    /// Never full unless all is left, never empty while something is.
    fn draw(self, left: u64, limit: u64) -> String {
        let tenths = u128::from(left) * u128::from(BAR_WIDTH) / u128::from(limit.max(1));
        let full = usize::try_from(tenths.min(BAR_WIDTH.into())).unwrap_or(0);
        let full = full.max(usize::from(left > 0));
        let (left, gone) = match self {
            Self::Blocks => ("█", "░"),
            Self::Ascii => ("#", "-"),
        };
        let width = usize::try_from(BAR_WIDTH).unwrap_or(full);
        left.repeat(full) + &gone.repeat(width.saturating_sub(full))
    }
}

/// A row for each quota of each upstream; nothing where nobody has one.
pub(super) fn rows(upstreams: &[UpstreamView], bars: Bars) -> Vec<Vec<Cell>> {
    let mut rows = Vec::new();
    for upstream in upstreams {
        let credential = |quota: &QuotaView| credential_of(quota).map(str::to_owned);
        let several = upstream.quotas.windows(2).any(|two| match two {
            [one, other] => credential(one) != credential(other),
            _ => false,
        });
        for (nth, quota) in upstream.quotas.iter().take(SCOPES_SHOWN_MAX).enumerate() {
            let name = if nth == 0 { upstream.name.clone() } else { String::new() };
            rows.push(row(name, quota, several, bars));
        }
        let more = upstream.quotas.len().saturating_sub(SCOPES_SHOWN_MAX);
        if more > 0 {
            let more = Cell::plain(format!("and {more} more; see --json"));
            rows.push(vec![Cell::default(), more]);
        }
    }
    if !rows.is_empty() {
        rows.insert(0, header(&["UPSTREAM", "QUOTA", "LEFT", "", ""]));
    }
    rows
}

fn row(upstream: String, quota: &QuotaView, several: bool, bars: Bars) -> Vec<Cell> {
    let whose = credential_of(quota).filter(|_| several);
    let name = match (&*quota.bucket, &quota.name) {
        // Of all that goes without a credential; the API gives it no other name.
        ("credential", Some(name)) if credential_of(quota).is_none() => {
            format!("{name}, {}", quota.scope)
        }
        ("credential", None) if credential_of(quota).is_none() => quota.scope.clone(),
        (bucket, name) => {
            let parts = std::iter::once(bucket).chain(name.as_deref()).chain(whose);
            parts.collect::<Vec<_>>().join(" ")
        }
    };
    let style = match quota.limit {
        _ if quota.remaining == 0 => AnsiColor::Red.on_default(),
        Some(limit) if quota.remaining < limit / BAR_WIDTH => AnsiColor::Yellow.on_default(),
        Some(_) | None => Style::new(),
    };
    let left = grouped(quota.remaining);
    let (bar, left) = match quota.limit {
        Some(limit) => (bars.draw(quota.remaining, limit), format!("{left}/{}", grouped(limit))),
        None => (String::new(), left),
    };
    let mut when =
        quota.reset_in_ms.map_or_else(String::new, |ms| format!("resets in {}", span(ms)));
    if !quota.is_told {
        let separator = if when.is_empty() { "" } else { ", " };
        when = format!("{when}{separator}as configured");
    }
    vec![
        Cell { text: upstream, style: Style::new().bold() },
        Cell::plain(name),
        Cell { text: bar, style },
        Cell { text: left, style },
        Cell::plain(when),
    ]
}

/// A few digits, if the quota is somebody's.
fn credential_of(quota: &QuotaView) -> Option<&str> {
    quota.scope.rsplit_once("credential ").map(|(_, digits)| digits)
}

/// `4,321`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_full_only_if_all_is_left_and_empty_only_if_nothing_is() {
        for (left, limit, bar) in [
            (0, 5000, "----------"),
            (1, 5000, "#---------"),
            (4321, 5000, "########--"),
            (4999, 5000, "#########-"),
            (5000, 5000, "##########"),
            (7, 5, "##########"),
            (u64::MAX, u64::MAX, "##########"),
            (0, 0, "----------"),
        ] {
            assert_eq!(Bars::Ascii.draw(left, limit), bar, "{left}/{limit}");
        }
        assert_eq!(Bars::Blocks.draw(2, 10), "██░░░░░░░░");
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        let shown = [0, 999, 1_000, 12_345, 1_234_567].map(grouped);
        assert_eq!(shown, ["0", "999", "1,000", "12,345", "1,234,567"]);
    }
    #[test]
    fn a_quota_names_its_bucket_and_whose_it_is() {
        let named = |bucket: &str, name: Option<&str>, scope: &str| {
            let quota = QuotaView {
                scope: scope.into(),
                bucket: bucket.into(),
                name: name.map(Into::into),
                is_told: true,
                limit: None,
                remaining: 1,
                reset_at: None,
                reset_in_ms: None,
            };
            row(String::new(), &quota, true, Bars::Ascii).remove(1).text
        };
        assert_eq!(named("search", None, "route search"), "search");
        assert_eq!(named("core", Some("x"), "bucket core, credential 1f2e3d"), "core x 1f2e3d");
        assert_eq!(
            named("credential", Some("daily"), "credential 1f2e3d"),
            "credential daily 1f2e3d"
        );
        assert_eq!(
            named("credential", Some("daily"), "without a credential"),
            "daily, without a credential"
        );
        assert_eq!(named("credential", None, "without a credential"), "without a credential");
    }
}
