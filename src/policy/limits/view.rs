//! The pools as plain data, to be shown and measured.

use std::sync::Arc;

use super::{Limits, Pool, PoolId};

/// A pool as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolView {
    /// The limit of the process, which is no key.
    pub is_process: bool,
    /// The value of the key.
    pub name: Arc<str>,
    /// The declaration it comes from: the name itself, or a pattern.
    pub declared: Arc<str>,
    /// Permits at most.
    pub limit: u32,
    /// Permits out.
    pub in_use: u32,
    /// Exchanges that named the key and hold no permit.
    pub waiting: u32,
}

impl Limits {
    /// All pools, in no particular order.
    pub fn view(&self) -> Vec<PoolView> {
        let view = |(id, pool): (&PoolId, &Pool)| PoolView {
            is_process: Self::is_process(*id),
            name: pool.name.clone(),
            declared: pool.declared.clone(),
            limit: pool.limit,
            in_use: pool.in_use,
            waiting: pool.members.saturating_sub(pool.in_use),
        };
        self.pools.iter().map(view).collect()
    }
}
