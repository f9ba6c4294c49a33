//! The pure core: decisions from facts.
//!
//! Nothing here reads a clock, draws a random number, sleeps, locks, logs or opens a socket. Time
//! comes in as [`time::MonoTime`], chance as [`time::Draw`], settings as arguments; decisions go
//! out as values, and what adapters must do goes out as events. That is why one seed replays a
//! whole history, and why the same code serves the proxy, the simulator and its tests.
//!
//! The modules stand in the order in which they are best read.

pub mod time;

pub mod outcome;

pub mod settings;

pub mod profile;

pub mod hints;

pub mod hash;

pub mod classify;

pub mod retry;

pub mod backoff;

pub mod window;

pub mod budget;

pub mod breaker;

pub mod adaptive;

pub mod scope;

pub mod line;

pub mod limits;

pub mod upstream;
