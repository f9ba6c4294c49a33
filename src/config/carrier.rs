//! Where a request says whose it is, for APIs that take their keys from elsewhere than the usual fields.
//!
//! Quotas and cooldowns belong to a credential. One that stands in a query or a cookie is seen only where
//! it is said which: a query has many parameters, and most are no secrets.

use std::fmt;

use super::kind::header_name;
use super::problem::Fault;

/// `credential_from`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// A field, in lower case.
    Header(String),
    /// A parameter of the query.
    Query(String),
    /// A cookie.
    Cookie(String),
}

impl Carrier {
    /// Reads `query:api_key`, `cookie:session`, `header:x-account`.
    pub(super) fn parse(text: &str) -> Result<Self, Fault> {
        let fix = r#"Write "query:NAME", "cookie:NAME" or "header:NAME"."#;
        let (kind, name) = text
            .split_once(':')
            .ok_or_else(|| Fault::new("it does not say where the name stands", fix))?;
        // What needs no escape in a query and is legal in the name of a cookie (RFC 6265 4.1.1).
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
        if name.is_empty() || !name.bytes().all(is_plain) {
            return Err(Fault::new("that is no name of letters, digits, - _ . and ~", fix));
        }
        match kind {
            "header" => header_name(name).map(Self::Header),
            "query" => Ok(Self::Query(name.to_owned())),
            "cookie" => Ok(Self::Cookie(name.to_owned())),
            _ => Err(Fault::new("a credential stands in a query, a cookie or a header", fix)),
        }
    }
}

/// As it is typed.
impl fmt::Display for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Query(name) => write!(f, "query:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
        }
    }
}
