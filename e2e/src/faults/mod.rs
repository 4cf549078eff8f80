//! A layer between the operator and a real apiserver that makes the faults of a network, of an
//! apiserver and of a process that dies; and what must hold in spite of them.
//!
//! ```text
//!  controller ──HTTP──▶ layer ──TLS──▶ kube-apiserver ◀── controller-manager (real)
//!   (process) ◀─killed──┘  │ writes         ▲  ▲  ▲
//!       ▲                  ▼                │  │  └── witness: every revision, no fault touches it
//!     relay              oracles            │  └───── kubelet (mock): every pod runs
//!   serving (process) ──────────────────────┘
//!       ▲ xDS, evidence
//!   proxies (mock: the real protocols, counted requests)
//! ```
//!
//! **Invariants**
//! - What is mocked is named so: the kubelet and the proxies. All else is the real program.
//! - A fault is told by what a request asks for, never by the time at which it comes, so that a
//!   plan is the same in each run.

pub mod cable;
pub mod call;
pub mod clusters;
pub mod history;
pub mod kubelet;
pub mod lane;
pub mod layer;
pub mod objects;
pub mod operator;
pub mod picture;
pub mod plan;
pub mod proxy;
mod record;
pub mod rule;
pub mod scene;
pub mod stage;
pub mod story;
pub mod witness;
