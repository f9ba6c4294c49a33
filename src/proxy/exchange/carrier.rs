//! Finds a credential where the configuration says that it stands. The value itself is hashed at once and
//! kept nowhere.

use http::header::COOKIE;
use http::request::Parts;

use crate::config::carrier::Carrier;

/// What stands there; `None` if nothing does.
pub(super) fn found<'p>(carrier: &Carrier, parts: &'p Parts) -> Option<&'p [u8]> {
    let value = match carrier {
        Carrier::Header(name) => parts.headers.get(name)?.as_bytes(),
        Carrier::Query(name) => {
            let pairs = parts.uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
            pairs.into_iter().find(|(own, _)| own == name)?.1.as_bytes()
        }
        // HTTP/2 may have several fields of one pair each (RFC 9113 8.2.3).
        Carrier::Cookie(name) => {
            let fields = parts.headers.get_all(COOKIE).iter();
            let pairs = fields.flat_map(|field| field.as_bytes().split(|byte| *byte == b';'));
            let is_it = |pair: &'p [u8]| {
                let value = pair.trim_ascii().strip_prefix(name.as_bytes())?;
                value.strip_prefix(b"=")
            };
            pairs.into_iter().find_map(is_it)?
        }
    };
    (!value.is_empty()).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(target: &str, fields: &[(&'static str, &'static str)]) -> Parts {
        let mut builder = http::Request::builder().uri(target);
        for (name, value) in fields {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap().into_parts().0
    }

    #[test]
    fn a_credential_is_found_where_it_was_said_to_stand_and_nowhere_else() {
        let query = Carrier::Query("key".into());
        let cookie = Carrier::Cookie("sid".into());
        let header = Carrier::Header("x-account".into());
        for (carrier, target, fields, expected) in [
            (&query, "/a?key=one", &[][..], Some("one")),
            (&query, "/a?x=1&key=one=two&key=three", &[], Some("one=two")),
            (&query, "/a?monkey=one&key=", &[], None),
            (&query, "/a?key", &[], None),
            (&query, "/key=one", &[], None),
            (&query, "/a", &[("cookie", "key=one")], None),
            (&cookie, "/a", &[("cookie", "a=1; sid=one; b=2")], Some("one")),
            (&cookie, "/a", &[("cookie", "a=1"), ("cookie", "sid=two")], Some("two")),
            (&cookie, "/a?sid=one", &[("cookie", "xsid=1; sidx=2; sid=")], None),
            (&header, "/a", &[("X-Account", "one")], Some("one")),
            (&header, "/a", &[("x-account", "")], None),
        ] {
            let parts = parts(target, fields);
            let expected = expected.map(str::as_bytes);
            assert_eq!(found(carrier, &parts), expected, "{carrier}, {target}, {fields:?}");
        }
    }
}
