//! Limits that span upstreams: the process's own, and the concurrency keys.
//!
//! They live behind a lock of their own, always taken second (upstream, then limits). Permits are
//! taken all together or not at all, so nobody holds one while waiting for another, and no order
//! of requests can deadlock. A pool that has waiters admits only the upstream whose turn it is:
//! without that, a busy upstream would take each freed permit before a quiet one heard of it.
//!
//! A pool whose order is strict gives each member a number when it joins, and a permit only to the
//! lowest number that has not left: whoever waits between two attempts is waited for.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use self::keys::Keys;
use self::strict::Strict;
use self::turns::Turns;
use super::hash::IdMap;
use super::settings::LimitSettings;

mod keys;

mod strict;

mod turns;

mod view;

pub use self::view::PoolView;

/// Distinct values of pattern keys remembered at once. At about 200 bytes each this is 2 MB; the
/// caller chooses the names, so the table must not be theirs to fill. Idle pools make room.
pub const POOLS_MAX: usize = 10_000;

/// Names an upstream among those that share limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UpstreamId(pub u32);

/// Names a pool of permits. Pools are never renumbered while somebody holds or awaits a permit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolId(u32);

/// All pools of permits that are not one upstream's own.
#[derive(Debug)]
pub struct Limits {
    pools: IdMap<PoolId, Pool>,
    by_name: HashMap<Arc<str>, PoolId>,
    keys: Keys,
    /// Pools that may be forgotten, unless they are in use again by then; each once.
    idle: VecDeque<PoolId>,
    /// Pools that may be forgotten some day: those of a pattern's values.
    passing: usize,
    queue_max: u32,
    queued: u32,
    next_id: u32,
    turns: Vec<UpstreamId>,
}

#[derive(Debug)]
struct Pool {
    name: Arc<str>,
    /// The declaration that made it, as it is shown: `tenant:*` for every tenant.
    declared: Arc<str>,
    limit: u32,
    in_use: u32,
    /// Exchanges that named this key and are not over yet; such a pool is not forgotten.
    members: u32,
    /// Upstreams with an exchange that could go but for this pool, in the order of their turns.
    waiting: Turns,
    /// Whether only the lowest number may go.
    is_ordered: bool,
    /// Members with a number.
    numbers: Strict,
    /// Whether its name was declared, so that it is never forgotten.
    stays: bool,
    /// Whether it is among the idle ones.
    noted: bool,
}

const PROCESS: PoolId = Limits::PROCESS;

impl Limits {
    /// The limit of the whole process.
    pub const PROCESS: PoolId = PoolId(0);

    /// Empty pools for these settings.
    pub fn new(settings: &LimitSettings) -> Self {
        let mut limits = Self {
            pools: IdMap::default(),
            by_name: HashMap::new(),
            keys: Keys::default(),
            idle: VecDeque::new(),
            passing: 0,
            queue_max: 0,
            queued: 0,
            next_id: 1,
            turns: Vec::new(),
        };
        let process = Pool::new("process".into(), "process".into(), settings.in_flight_max, true);
        limits.pools.insert(PROCESS, process);
        limits.configure(settings);
        limits
    }

    /// Takes over new settings. A lowered limit admits nobody until enough have left; a raised or
    /// removed one gives turns at once.
    pub fn configure(&mut self, settings: &LimitSettings) {
        self.keys = Keys::new(&settings.keys);
        self.queue_max = settings.queue_max;
        for (id, pool) in &mut self.pools {
            if *id == PROCESS {
                pool.limit = settings.in_flight_max;
                continue;
            }
            // A key that is declared no longer limits nobody.
            let key = self.keys.covering(&pool.name);
            pool.limit = key.map_or(u32::MAX, |key| key.in_flight_max);
            pool.is_ordered = key.is_some_and(|key| key.ordered);
            if !pool.is_ordered {
                // Whoever waited for its number waits for a permit.
                pool.numbers.take_all_waiting().for_each(|upstream| pool.waiting.enter(upstream));
            }
            pool.stays = self.keys.declares(&pool.name);
        }
        self.passing = self.pools.values().filter(|pool| !pool.stays).count();
        for key in settings.keys.iter().filter(|key| !key.pattern.contains('*')) {
            self.pool(&key.pattern.clone());
        }
        let mut all: Vec<PoolId> = self.pools.keys().copied().collect();
        all.sort_unstable();
        for id in all {
            self.note_if_idle(id);
            self.give_turn(id);
        }
    }

    /// Joins the key named `name`. `None` when no declaration covers it: such a key limits nothing.
    /// When the table is full of pools in use, the pool named after the pattern serves.
    pub fn join(&mut self, name: &str) -> Option<PoolId> {
        let id = self.pool(name)?;
        if let Some(pool) = self.pools.get_mut(&id) {
            pool.members = pool.members.saturating_add(1);
        }
        Some(id)
    }

    /// Leaves a key that was joined.
    pub fn leave(&mut self, id: PoolId) {
        if let Some(pool) = self.pools.get_mut(&id) {
            debug_assert!(pool.members > 0, "left more often than joined");
            pool.members = pool.members.saturating_sub(1);
        }
        self.note_if_idle(id);
    }

    /// Gives a member its number, if the order of this pool is strict. Members of several pools
    /// should be numbered in all of them before the next one is: else two could wait for each other.
    pub fn number(&mut self, id: PoolId) -> Option<u64> {
        let pool = self.pools.get_mut(&id).filter(|pool| pool.is_ordered)?;
        Some(pool.numbers.next())
    }

    /// A member with a number leaves; whoever has the next one may be due.
    pub fn pass_on(&mut self, id: PoolId, number: u64) {
        if let Some(pool) = self.pools.get_mut(&id) {
            pool.numbers.leave(number);
            self.give_turn(id);
        }
    }

    /// As [`Self::try_take_as`] without numbers.
    pub fn try_take(&mut self, upstream: UpstreamId, pools: &[PoolId]) -> Result<(), PoolId> {
        self.try_take_as(upstream, pools, None)
    }

    /// Takes one permit of the process and one of each pool, or none and the pool that is in the
    /// way; the upstream then has its place among those that wait for it.
    pub fn try_take_as(
        &mut self,
        upstream: UpstreamId,
        pools: &[PoolId],
        numbers: Option<&[(PoolId, u64)]>,
    ) -> Result<(), PoolId> {
        for id in std::iter::once(&PROCESS).chain(pools) {
            let Some(pool) = self.pools.get_mut(id) else {
                continue;
            };
            if pool.is_ordered
                && let Some(number) = numbers.and_then(|numbers| number_in(numbers, *id))
            {
                let is_full = pool.in_use >= pool.limit;
                if is_full || !pool.numbers.is_first(number) {
                    pool.numbers.wait(number, upstream);
                    if !is_full {
                        self.give_turn(*id);
                    }
                    return Err(*id);
                }
                continue;
            }
            let first = pool.waiting.first();
            let is_full = pool.in_use >= pool.limit;
            if is_full || first.is_some_and(|first| first != upstream) {
                pool.waiting.enter(upstream);
                if !is_full {
                    self.give_turn(*id);
                }
                return Err(*id);
            }
        }
        for id in std::iter::once(&PROCESS).chain(pools) {
            let Some(pool) = self.pools.get_mut(id) else {
                continue;
            };
            pool.in_use += 1;
            if pool.waiting.first() == Some(upstream) {
                pool.waiting.rotate();
            }
            self.give_turn(*id);
        }
        Ok(())
    }

    /// Gives the permits back.
    pub fn give_back(&mut self, pools: &[PoolId]) {
        for id in std::iter::once(&PROCESS).chain(pools) {
            let Some(pool) = self.pools.get_mut(id) else {
                continue;
            };
            debug_assert!(pool.in_use > 0, "a permit is given back once");
            pool.in_use = pool.in_use.saturating_sub(1);
            self.note_if_idle(*id);
            self.give_turn(*id);
        }
    }

    /// The upstream no longer waits for this pool.
    pub fn withdraw(&mut self, upstream: UpstreamId, id: PoolId) {
        if let Some(pool) = self.pools.get_mut(&id)
            && pool.waiting.leave(upstream)
        {
            self.note_if_idle(id);
            self.give_turn(id);
        }
    }

    /// The upstream is gone; it waits for nothing.
    pub fn forget(&mut self, upstream: UpstreamId) {
        let all: Vec<PoolId> = self.pools.keys().copied().collect();
        for id in all {
            self.withdraw(upstream, id);
        }
    }

    /// One more exchange waits; refused when the process holds as many as it may.
    #[expect(clippy::result_unit_err, reason = "there is one reason only")]
    pub fn enter_queue(&mut self) -> Result<(), ()> {
        if self.queued >= self.queue_max {
            return Err(());
        }
        self.queued += 1;
        Ok(())
    }

    /// One more exchange waits, whatever the bound: it was admitted before.
    pub fn reenter_queue(&mut self) {
        self.queued = self.queued.saturating_add(1);
    }

    /// One exchange less waits.
    pub fn leave_queue(&mut self) {
        debug_assert!(self.queued > 0, "left more often than entered");
        self.queued = self.queued.saturating_sub(1);
    }

    /// Exchanges that wait, all upstreams together.
    pub fn queued(&self) -> u32 {
        self.queued
    }

    /// The upstreams that should look again whether somebody can go. Empty on the common path.
    pub fn take_turns(&mut self) -> Vec<UpstreamId> {
        std::mem::take(&mut self.turns)
    }

    /// Name of a pool, for messages.
    pub fn name(&self, id: PoolId) -> Option<Arc<str>> {
        self.pools.get(&id).map(|pool| pool.name.clone())
    }

    /// The declaration that a pool comes from: a closed set, fit for labels.
    pub fn declared(&self, id: PoolId) -> Option<Arc<str>> {
        self.pools.get(&id).map(|pool| pool.declared.clone())
    }

    /// Whether `id` is the process's own limit.
    pub fn is_process(id: PoolId) -> bool {
        id == PROCESS
    }

    /// If there is room and somebody waits, the first of them gets a turn.
    fn give_turn(&mut self, id: PoolId) {
        if let Some(pool) = self.pools.get_mut(&id)
            && pool.in_use < pool.limit
            && let Some(first) = pool.next()
            && !self.turns.contains(&first)
        {
            self.turns.push(first);
        }
    }

    fn pool(&mut self, name: &str) -> Option<PoolId> {
        if let Some(id) = self.by_name.get(name) {
            return Some(*id);
        }
        let key = self.keys.covering(name)?.clone();
        let stays = *key.pattern == *name;
        if !stays {
            if self.passing >= POOLS_MAX {
                self.forget_one_idle();
            }
            if self.passing >= POOLS_MAX {
                return self.pool(&key.pattern);
            }
            self.passing += 1;
        }
        let id = PoolId(self.next_id);
        self.next_id = self.next_id.wrapping_add(1).max(1);
        let name: Arc<str> = name.into();
        self.by_name.insert(name.clone(), id);
        let mut pool = Pool::new(name, key.pattern, key.in_flight_max, stays);
        pool.is_ordered = key.ordered;
        self.pools.insert(id, pool);
        Some(id)
    }

    /// A pool that nobody uses makes room when room is needed.
    fn note_if_idle(&mut self, id: PoolId) {
        if let Some(pool) = self.pools.get_mut(&id)
            && !pool.stays
            && !pool.noted
            && pool.is_idle()
        {
            pool.noted = true;
            self.idle.push_back(id);
        }
    }

    fn forget_one_idle(&mut self) {
        while let Some(id) = self.idle.pop_front() {
            let Some(pool) = self.pools.get_mut(&id) else { continue };
            pool.noted = false;
            if pool.is_idle() && !pool.stays {
                self.by_name.remove(&pool.name);
                self.pools.remove(&id);
                self.passing -= 1;
                return;
            }
        }
    }
}

impl Pool {
    fn new(name: Arc<str>, declared: Arc<str>, limit: u32, stays: bool) -> Self {
        Self {
            name,
            declared,
            limit,
            in_use: 0,
            members: 0,
            waiting: Turns::default(),
            is_ordered: false,
            numbers: Strict::default(),
            stays,
            noted: false,
        }
    }

    /// Whose turn it is; who is called by number is called once.
    fn next(&mut self) -> Option<UpstreamId> {
        let numbered = if self.is_ordered { self.numbers.call() } else { None };
        numbered.or(self.waiting.first())
    }

    fn is_idle(&self) -> bool {
        self.in_use == 0 && self.members == 0 && self.waiting.is_empty()
    }
}

fn number_in(numbers: &[(PoolId, u64)], id: PoolId) -> Option<u64> {
    numbers.iter().find(|(of, _)| *of == id).map(|(_, number)| *number)
}

#[cfg(test)]
mod tests;
