//! forbear: a sidecar HTTP resilience proxy.
//!
//! A pipeline calls APIs that limit it. forbear is the one process beside it that knows what they
//! said: it waits when an API says wait, repeats what is safe to repeat, and stops asking when an
//! API is down. Callers change their base URL and nothing else. This page is the map of the house;
//! each module begins with what it is and why.
//!
//! # Modules, in reading order
//!
//! | module | what it is |
//! |---|---|
//! | [`policy`] | the pure core: decisions from facts, without clock, lock, task or socket |
//! | [`profiles`] | known APIs, as data |
//! | [`config`] | what was typed becomes [`config::settings::Settings`], or every problem at once |
//! | [`io`] | timers and writes that both sides' sockets share |
//! | [`transport`] | one attempt's bytes towards an upstream; knows nothing of policy |
//! | [`telemetry`] | one finished story feeds metrics, access log and response fields |
//! | [`store`] | what outlives an exchange and the process: ledger and state in one file |
//! | [`gateway`] | the configuration in force, swapped whole, and the state that outlives it |
//! | [`proxy`] | the life of one exchange |
//! | [`serve`] | sockets towards the callers, behind a strict gate |
//! | [`admin`] | what operators, probes and scrapers ask, and the few things they change |
//! | [`sidecar`] | one whole forbear: binds everything, starts everything, ends it |
//! | [`simulate`] | the policy under a virtual clock: what would have happened |
//! | [`demo`] | a fake API and a job, for `forbear demo` and for the tests |
//! | [`cli`] | what can be typed, and with which code it ends |
//!
//! # The life of an exchange
//!
//! 1. **Gate.** [`serve`] reads every byte before hyper does and lets only whole, valid message
//!    heads through. What is malformed takes the same way out as every other refusal.
//! 2. **Check the head.** [`proxy::head`] looks at framing, hop-by-hop fields and loops;
//!    [`proxy::target`] at what the request names.
//! 3. **Find the route.** [`gateway::route`] goes from a listener of its own, an origin or host, or
//!    the longest prefix to an upstream and one of its routes.
//! 4. **Read what the client says.** [`proxy::directives`]: the `Forbear-*` fields, and the
//!    deadlines that SDKs announce. From method and idempotency key follows what may be repeated.
//! 5. **Wait for the turn.** The exchange joins [`policy::upstream`] and asks until it gets a
//!    grant, which takes breaker, cooldown, quota and all permits together. `proxy::gate` turns the
//!    answers into timers and wake-ups. Meanwhile the body is read ahead, up to its bound.
//! 6. **Send.** [`transport::send`] gives a response head, or what failed and whether anything was
//!    sent.
//! 7. **Classify and settle.** [`policy::classify`] says what it means, as the API's profile has it
//!    and, where that can matter, by the beginning of the body. [`policy::upstream`] draws the
//!    conclusions for breaker, cooldown, quota and retry budget. If it is to be repeated, the
//!    place is given back and the exchange stands in line again (5), as old as it was.
//! 8. **Relay** the final response as it streams; the place in flight is held to its last byte.
//!    Addresses of upstreams in it lead through forbear (`proxy::links`), so that page 2 does, too.
//!    **Refuse** only if no response was ever received: one table of codes, one way out, a truthful
//!    `Retry-After`.
//! 9. **Tell.** The [`telemetry::story::Story`] is finished exactly once, also for a client that
//!    left, and everything that is counted, logged or kept in the [`store`] comes from it.
//!
//! # What always holds
//!
//! * No attempt starts before a moment that the upstream named, nor while its breaker is open.
//! * A request that is not safe to repeat reaches the upstream twice only if the first attempt was
//!   provably not sent, or was refused by a rate limit before anything was done.
//! * Every attempt of an exchange carries the same body. After its first byte was forwarded, a
//!   response is final.
//! * Permits are taken all or none, and a waiting exchange holds none: no order of requests can
//!   deadlock.
//! * Every queue, map, body and channel has a bound: a setting, or a constant that says why.
//! * No lock is held across an `.await`: policy is only reachable through closures, which cannot be
//!   async.
//! * A refusal, a wait and a repeat have one name, the same in response, log, metric and API.
//!   Names are declared in [`telemetry::names`] and [`proxy::reject`].
//! * No secret is printed, logged or shown.
//!
//! # Who may know whom
//!
//! ```text
//!   cli ──► sidecar ──► admin ──────► telemetry ──► policy ◄── config
//!    │         │                          ▲           ▲
//!    ▼         ├──► proxy ──► gateway ────┴───────────┤
//!   demo       │      │  └────────────────────────────┘
//!              ▼      ▼
//!            serve  transport
//! ```
//!
//! [`policy`] knows nobody. [`transport`] never sees policy, and policy never sees transport: they
//! meet in `proxy::attempts` and `proxy::reading`, which translate. [`profiles`] knows policy's
//! form of a profile, and is known by [`config`] and [`cli`]. [`serve`] knows exchanges only as
//! [`serve::Exchanges`], which [`proxy`] fills; [`admin`] knows the rest only as
//! [`admin::backend::Backend`], which [`sidecar`] fills; [`demo`] knows forbear only as
//! [`demo::Proxy`], which [`cli`] fills. [`telemetry::trace`] keeps what is to become spans until
//! [`sidecar`] sends it, by [`transport`]. [`simulate`] drives [`policy`] as [`proxy`] does, knows
//! [`profiles`], [`config`] and the tables of [`store`], and is known by [`cli`] and the tests.
//! Everybody may know [`config::settings`]. [`store`] is told through a handle in
//! [`gateway::Common`] and owned by [`sidecar`]. Five loans go against the arrows: [`gateway`]
//! matches [`proxy::target`] and keeps a [`proxy::head`] prepared for each upstream, [`serve`]
//! refuses with the codes of [`proxy::reject`], and [`telemetry`] has a word for each of
//! [`transport::error`]; [`simulate`] finds routes and quotas with [`gateway::route`] and
//! [`gateway::spending`], and counts by the codes of [`proxy::reject`]. Only [`gateway::clock`]
//! reads a clock and only [`config`] the environment; lints hold that.
//!
//! # Decisions that surprise
//!
//! *The alarm is minded by the head of a lane.* Exchanges that need the same things wait in one
//! lane, and only its first sleeps on a timer: thousands that wait for one moment cost one wake-up,
//! and whoever goes wakes the next. *Limits have turns*: a pool that several upstreams share admits
//! the one whose turn it is, since a busy upstream would otherwise take each freed permit before a
//! quiet one heard of it. *[`sidecar`] is a module of its own*, so that the command line, the demo
//! and the tests start the same whole thing. *The JSON types are [`telemetry::view`]*, not the admin
//! API's, because a scrape reads the same values and must not tell another story.
//!
//! # Words
//!
//! | word | means |
//! |---|---|
//! | downstream, upstream | the side that calls forbear; the API that it calls |
//! | exchange | one downstream request and its one final response |
//! | attempt | one request to the upstream within an exchange, counted from 1 |
//! | outcome, class | what an attempt's end means |
//! | breaker | closed (traffic flows), open, half-open |
//! | cooldown | "nothing before this time" for one scope, because the upstream said so |
//! | bucket | what shares a quota of an upstream: a part that it names itself, else a route |
//! | scope | what an upstream's word covers: a bucket with a credential, a credential, or all of it |
//! | quota | units that an upstream allows in a time; most requests cost one |
//! | key | a named pool of permits that requests join |
//! | permit, ticket | a place among those in flight; a place in line for one |
//! | lane | tickets of one flow that need the same things |
//! | flow, band | whoever shares turns in a line, usually a run; how urgent it is |
//! | wait | time spent inside forbear: `queue`, `pacing`, `cooldown`, `backoff` or `breaker` |
//! | refusal, rejection | forbear's own answer, with a stable code |

#![forbid(unsafe_code)]

pub mod policy;

pub mod profiles;

pub mod config;

pub mod io;

pub mod transport;

pub mod telemetry;

pub mod store;

pub mod gateway;

pub mod proxy;

pub mod serve;

pub mod admin;

pub mod sidecar;

pub mod demo;

pub mod simulate;

pub mod cli;
