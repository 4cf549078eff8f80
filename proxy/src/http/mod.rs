//! Requests and answers: from the client's connection to the endpoint's and back.
//!
//! ```text
//!  serve (hyper's server) ─▶ outbound / inbound ─▶ Upstream::send
//!        ▲                        │ RequestBody (kept for a replay)
//!        └── ResponseBody ◀───────┘ observed to its end by a Tracker
//! ```

mod body;
mod headers;
mod inbound;
mod local;
mod observe;
mod outbound;
mod response;
mod serve;
mod template;
mod upgrade;

pub use body::RequestBody;
pub use headers::REFUSED;
pub use inbound::own_cluster;
pub use response::ResponseBody;
pub use serve::{Handler, serve, server};
