//! Judges what the proxies saw: condemns, passes, or waits.
//!
//! ```text
//!  strata ─▶ Analysis ─┬─ Relative ◀── Margins ───────────────┐
//!                      ├─ Absolute ◀── Window ─────────────────┼─▶ Mixture ─▶ condemned
//!                      │                 └─▶ shared outage     │
//!                      └─ fences ─▶ promotion ─▶ sufficient, needed
//! ```
//!
//! **What is promised.** A good release is condemned with a chance of at most `alpha` over its
//! whole life, however often one looks, whatever the weights, the load and the base rate do.
//! Each test is an *e-process*: a product of factors whose expectation, given the past, is at
//! most 1 when the release is good. By Ville's inequality (Ville 1939; Howard, Ramdas, McAuliffe
//! and Sekhon, Annals of Statistics 2021) it reaches 1/alpha at any time with a chance of at most
//! alpha. One alpha serves all tests: what is compared with 1/alpha is their weighted mean, which
//! is an e-process again under any dependence (Vovk and Wang 2021).
//!
//! **Invariants**
//! - No weight enters a test of the arms against each other: given the totals of a stratum, a
//!   good candidate's failures are a draw by the coin.
//! - When evidence is cut into strata, and which strata are put together, never depends on which
//!   arm failed.
//! - No traffic is never good news.
//! - One witness, proxy or pod, whom others contradict condemns nobody. Whoever is left out is
//!   left out of condemnations only, so that no promotion becomes easier by it; but for those
//!   whom a person has set aside.

mod absolute;
mod analysis;
mod hypergeometric;
mod mixture;
mod promotion;
mod proportion;
mod relative;
mod sentence;
mod share;
mod tally;
mod window;
mod witnesses;

pub use analysis::{Analysis, Ignored};
