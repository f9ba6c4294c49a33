//! What is read out of rows of the ledger: names that many of them share, and what answers told.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::Row;

use crate::policy::line::CredentialId;
use crate::simulate::infer::Quota;

/// Whose quota an exchange spent.
#[derive(Clone, Debug)]
pub(super) struct Credential {
    /// As far as the ledger knows it.
    pub(super) id: CredentialId,
    pub(super) name: Arc<str>,
}

/// Names that many rows have.
#[derive(Default)]
pub(super) struct Known {
    keys: HashMap<String, Arc<[String]>>,
    names: HashMap<String, Arc<str>>,
}

impl Known {
    pub(super) fn keys(&mut self, text: String) -> Arc<[String]> {
        let split = |text: &str| text.split(' ').map(str::to_owned).collect();
        self.keys.entry(text).or_insert_with_key(|text| split(text)).clone()
    }

    pub(super) fn name(&mut self, name: String) -> Arc<str> {
        self.names.entry(name).or_insert_with_key(|name| name.as_str().into()).clone()
    }

    /// Its digits are the first of its hash; which credential it is, they say well enough.
    pub(super) fn credential(&mut self, digits: Option<String>) -> Credential {
        let number = digits.as_deref().and_then(|it| u64::from_str_radix(it, 16).ok());
        let name = digits.map_or("no credential".to_owned(), |it| format!("credential {it}"));
        Credential { id: CredentialId(number.map_or(0, |it| it << 40)), name: self.name(name) }
    }
}

/// What an answer said of a quota.
pub(super) fn quota(row: &Row<'_>) -> rusqlite::Result<Option<Quota>> {
    let Some(remaining) = row.get("quota_remaining")? else { return Ok(None) };
    let limit: Option<i64> = row.get("quota_limit")?;
    let reset: Option<f64> = row.get("quota_reset_ms")?;
    Ok(Some(Quota {
        limit: limit.and_then(|limit| usize::try_from(limit).ok()),
        remaining,
        reset: reset.map(|ms| ms / 1000.0),
    }))
}
