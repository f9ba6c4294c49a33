//! What a field's name says: most fields have nothing to do with limits, and a few hundred
//! spellings mean one of ten things.
//!
//! Every response of the data path comes through here, so the names that every response has are
//! told first, by comparison with constants. Capital letters tell nothing: HTTP/2 has none.

/// What a field is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Named<'a> {
    /// `Retry-After`.
    RetryAfter,
    /// A wait in milliseconds.
    RetryAfterMs,
    /// A wait in a vendor's own field.
    VendorRetryAfter,
    /// `RateLimit` of the later IETF drafts, or a family's bare name.
    Bare(Key<'a>),
    /// `RateLimit-Policy`.
    Policy,
    /// One member of a quota.
    Member(Member, Key<'a>),
    /// What the response's word covers.
    Scope,
    /// The bucket or resource that the request belongs to.
    Bucket,
    /// Nothing.
    Other,
}

/// A member of a quota whose other members stand in other fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Member {
    Limit,
    Remaining,
    /// In any form.
    Reset,
    /// A span, by name.
    ResetAfter,
    /// A span in seconds, by name.
    ResetSeconds,
    /// A number in milliseconds, by name.
    ResetMs,
    /// When one more request fits.
    Next,
}

/// Which quota a field belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key<'a> {
    /// Everything up to and including `ratelimit`.
    pub(super) family: &'a str,
    /// What is left of the name when family and member are gone.
    pub(super) qualifier: &'a str,
}

/// Whether a field can be of interest: cheap, and right for all but a few names.
pub(super) fn may_tell(name: &str) -> bool {
    match name {
        "accept-ranges"
        | "access-control-allow-origin"
        | "access-control-expose-headers"
        | "age"
        | "alt-svc"
        | "cache-control"
        | "connection"
        | "content-encoding"
        | "content-length"
        | "content-security-policy"
        | "content-type"
        | "date"
        | "etag"
        | "expires"
        | "keep-alive"
        | "last-modified"
        | "link"
        | "location"
        | "referrer-policy"
        | "server"
        | "server-timing"
        | "set-cookie"
        | "strict-transport-security"
        | "transfer-encoding"
        | "vary"
        | "via"
        | "x-cache"
        | "x-content-type-options"
        | "x-frame-options"
        | "x-request-id"
        | "x-xss-protection" => false,
        _ => {
            let bytes = name.as_bytes();
            bytes.windows(5).any(|five| matches!(five, b"limit" | b"retry"))
        }
    }
}

const MARKERS: [&str; 3] = ["ratelimit", "rate-limit", "requestlimit"];

/// Ends of names that have the form of a quota and are none.
const NO_QUOTA: [&str; 14] = [
    "policy",
    "nearlimit",
    "global",
    "used",
    "observed",
    "fillrate",
    "interval-seconds",
    "period",
    "source",
    "cost",
    "count",
    "usage",
    "window",
    "enabled",
];
const SCOPES: [&str; 4] = ["scope", "type", "reason", "problem"];
const BUCKETS: [&str; 3] = ["bucket", "resource", "name"];

/// Names of members; of two that fit, the first is meant.
const MEMBERS: [(&str, Member); 27] = [
    ("reset-after-ms", Member::ResetMs),
    ("reset-milliseconds", Member::ResetMs),
    ("reset-ms", Member::ResetMs),
    ("reset-after-seconds", Member::ResetSeconds),
    ("reset-in-seconds", Member::ResetSeconds),
    ("resets-after", Member::ResetAfter),
    ("reset-after", Member::ResetAfter),
    ("resetafter", Member::ResetAfter),
    ("resets-in", Member::ResetAfter),
    ("reset-in", Member::ResetAfter),
    ("resetsin", Member::ResetAfter),
    ("resetin", Member::ResetAfter),
    ("reset-seconds", Member::ResetSeconds),
    ("resetseconds", Member::ResetSeconds),
    ("reset-timestamp", Member::Reset),
    ("reset-time", Member::Reset),
    ("resettime", Member::Reset),
    ("reset-date", Member::Reset),
    ("reset-epoch", Member::Reset),
    ("resets-at", Member::Reset),
    ("reset-at", Member::Reset),
    ("resets", Member::Reset),
    ("reset", Member::Reset),
    ("remaining", Member::Remaining),
    ("next", Member::Next),
    ("limit", Member::Limit),
    ("max", Member::Limit),
];

/// Reads a name in lower case.
pub(super) fn named(name: &str) -> Named<'_> {
    match name {
        "retry-after" => return Named::RetryAfter,
        // The last one is in milliseconds in spite of its name.
        "retry-after-ms" | "x-ms-retry-after-ms" | "x-amz-retry-after" => {
            return Named::RetryAfterMs;
        }
        _ => {}
    }
    if ends(name, "retry-after-ms").is_some() {
        return Named::RetryAfterMs;
    }
    if name.ends_with("retry-after") || name.ends_with("retryafter") {
        return Named::VendorRetryAfter;
    }
    let Some((family, rest)) = after_marker(name).and_then(|end| name.split_at_checked(end)) else {
        return Named::Other;
    };
    let rest = rest.trim_matches(['-', '_']);
    // Almost every quota that is met has no qualifier.
    match rest {
        "" => return Named::Bare(key(family, "")),
        "limit" => return Named::Member(Member::Limit, key(family, "")),
        "remaining" => return Named::Member(Member::Remaining, key(family, "")),
        "reset" => return Named::Member(Member::Reset, key(family, "")),
        "used" => return Named::Other,
        "policy" => return Named::Policy,
        _ => {}
    }
    let is_one_of = |words: &[&str]| words.iter().any(|word| ends(rest, word).is_some());
    if is_one_of(&SCOPES) {
        return Named::Scope;
    }
    if is_one_of(&BUCKETS) {
        return Named::Bucket;
    }
    if is_one_of(&NO_QUOTA) {
        return Named::Other;
    }
    let edges = |text: &str| (text.as_bytes().first().copied(), text.as_bytes().last().copied());
    let (first, last) = edges(rest);
    let member = MEMBERS.iter().find_map(|&(word, member)| {
        if edges(word).0 != first && edges(word).1 != last {
            return None;
        }
        let qualifier = begins(rest, word).or_else(|| ends(rest, word))?;
        Some(Named::Member(member, key(family, qualifier)))
    });
    member.unwrap_or(Named::Other)
}

/// Where the first marker of a name ends. All of them end in `limit`, which is looked for by hand:
/// the search of the standard library is made for longer texts.
fn after_marker(name: &str) -> Option<usize> {
    const LIMIT: &[u8] = b"limit";
    let bytes = name.as_bytes();
    let places = bytes.windows(LIMIT.len()).enumerate();
    let mut ends = places.filter(|(_, five)| *five == LIMIT).map(|(at, _)| at + LIMIT.len());
    ends.find(|&end| {
        let up_to = bytes.get(..end).unwrap_or_default();
        MARKERS.iter().any(|marker| up_to.ends_with(marker.as_bytes()))
    })
}

/// A name without a qualifier behind the marker may have one before it.
fn key<'a>(family: &'a str, qualifier: &'a str) -> Key<'a> {
    if !qualifier.is_empty() {
        return Key { family, qualifier };
    }
    let marker = MARKERS.iter().find_map(|marker| family.strip_suffix(marker)).unwrap_or_default();
    let before = marker.strip_prefix("x-").unwrap_or(marker);
    Key { family, qualifier: before.trim_matches(['-', '_']) }
}

/// What follows `word` at the start of `text`, if a separator or nothing does.
fn begins<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let rest = text.strip_prefix(word)?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix(['-', '_']) }
}

/// What precedes `word` at the end of `text`, if a separator or nothing does.
fn ends<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let rest = text.strip_suffix(word)?;
    if rest.is_empty() { Some(rest) } else { rest.strip_suffix(['-', '_']) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member<'a>(member: Member, family: &'a str, qualifier: &'a str) -> Named<'a> {
        Named::Member(member, Key { family, qualifier })
    }

    #[test]
    fn a_quota_is_found_whatever_the_order_of_the_words() {
        use Member as M;
        let x = "x-ratelimit";
        for (name, expected) in [
            ("x-ratelimit-limit", member(M::Limit, x, "")),
            ("x-ratelimit-remaining-tokens", member(M::Remaining, x, "tokens")),
            ("x-ratelimit-tokens-remaining", member(M::Remaining, x, "tokens")),
            ("x-ratelimit-reset-after", member(M::ResetAfter, x, "")),
            ("x-ratelimit-reset-input-tokens", member(M::Reset, x, "input-tokens")),
            ("x-ratelimit-resetseconds", member(M::ResetSeconds, x, "")),
            ("x-rate-limit-api-key-max", member(M::Limit, "x-rate-limit", "api-key")),
            (
                "anthropic-ratelimit-requests-reset",
                member(M::Reset, "anthropic-ratelimit", "requests"),
            ),
            ("gw-ratelimit-limit", member(M::Limit, "gw-ratelimit", "gw")),
            (
                "x-ratelimit-rapid-free-plans-hard-limit-remaining",
                member(M::Remaining, x, "rapid-free-plans-hard-limit"),
            ),
            (
                "x-ratelimit-rapid-free-plans-hard-limit-limit",
                member(M::Limit, x, "rapid-free-plans-hard-limit"),
            ),
            ("x-ratelimit-next", member(M::Next, x, "")),
            ("x-ms-requestlimit-remaining", member(M::Remaining, "x-ms-requestlimit", "ms")),
            ("x-rate-limit", Named::Bare(Key { family: "x-rate-limit", qualifier: "" })),
            ("ratelimit-policy", Named::Policy),
            ("retry-after", Named::RetryAfter),
            ("x-ms-ratelimit-microsoft.costmanagement-qpu-retry-after", Named::VendorRetryAfter),
            ("x-ratelimit-scope", Named::Scope),
            ("stripe-rate-limited-reason", Named::Scope),
            ("x-ratelimit-bucket", Named::Bucket),
        ] {
            assert_eq!(named(name), expected, "{name}");
            assert!(may_tell(name), "{name}");
        }
    }

    #[test]
    fn what_only_sounds_like_a_quota_is_none() {
        for name in [
            "x-ratelimit-nearlimit",
            "x-ratelimit-used",
            "x-ratelimit-global",
            "x-app-rate-limit-count",
            "x-ratelimit-interval-seconds",
            "x-ratelimit-period",
            "docker-ratelimit-source",
            "x-should-retry",
            "content-type",
            "x-limit",
            "",
        ] {
            assert_eq!(named(name), Named::Other, "{name}");
        }
    }
}
