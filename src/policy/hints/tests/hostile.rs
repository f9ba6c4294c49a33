//! Bytes from a server that errs, or means harm.

use proptest::prelude::*;

use super::*;

#[test]
fn only_so_many_fields_and_members_are_looked_at() {
    let mut fields = vec![("retry-after", "1"); fields::FIELDS_MAX];
    fields.push(("retry-after", "500"));
    assert_eq!(wait(&fields), Some((1_000, HintSource::RetryAfterDelta)));
    let members = format!("{}500", "1,".repeat(fields::MEMBERS_MAX));
    assert_eq!(wait(&[("retry-after", &members)]), Some((1_000, HintSource::RetryAfterDelta)));
}

/// Texts near to what is understood, so that every branch is reached, and bytes that are not.
fn value() -> impl Strategy<Value = Vec<u8>> {
    const WORDS: &str = "0 1 60 15 26 2026 999999999 1768471230 99999999999999999999999999999999 \
        - . : ; , \" \\ ( é Thu, Jan 10:00:30 GMT UTC +01:00 -0100 T Z r= t= q= limit= remaining= \
        reset= ms m h s";
    let mut words: Vec<_> = WORDS.split_whitespace().collect();
    words.push(" ");
    prop_oneof![
        prop::collection::vec(prop::sample::select(words), 0..12)
            .prop_map(|words| words.concat().into_bytes()),
        prop::collection::vec(any::<u8>(), 0..60),
    ]
}

fn any_headers() -> impl Strategy<Value = HeaderMap> {
    const OTHERS: [&str; 7] = [
        "age",
        "date",
        "retry-after",
        "retry-after-ms",
        "x-amz-retry-after",
        "ratelimit",
        "ratelimit-reset-after",
    ];
    let name = prop::sample::select([&OTHERS[..], &IETF, &X, &X_RATE].concat());
    prop::collection::vec((name, value()), 0..24).prop_map(|fields| {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                map.append(HeaderName::from_static(name), value);
            }
        }
        map
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn no_bytes_cause_a_panic_or_a_wait_beyond_a_month(
        headers in any_headers(),
        status in prop_oneof![Just(429), any::<u16>()],
        unix_ms in prop_oneof![Just(NOW.unix_ms), any::<i64>()],
    ) {
        let reading = read(status, &headers, WallTime { unix_ms });
        prop_assert!(reading.hint.is_none_or(|hint| hint.wait <= WAIT_MAX));
        let mut resets = reading.quotas.iter().filter_map(|quota| quota.reset);
        prop_assert!(resets.all(|reset| reset <= WAIT_MAX));
    }

    #[test]
    fn a_wait_is_never_shorter_than_stated(secs in 0..2_678_400_u64, ms in 0..1_000_u32) {
        let stated = Duration::new(secs, ms * 1_000_000);
        let given = read(429, &headers(&[("retry-after", &format!("{secs}.{ms:03}"))]), NOW);
        prop_assert_eq!(given.hint.map(|hint| hint.wait), Some(stated));
    }
}
