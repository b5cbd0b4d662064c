//! The front doors and the path of a request between them and the upstream.
//!
//! Read [`path`] first: it is the life of a request, phase by phase, and every other file here is
//! one of its phases, or stands beside them:
//!
//! | file | what it is |
//! |---|---|
//! | `path` | the phases in order, and the loop of attempts |
//! | `identify`, `decode`, `admit`, `exchange`, `relay`, `answer`, `settle` | a phase each |
//! | `plan`, `attempt` | what is going to be done; `exchange` and `relay`, once |
//! | `memory` | conversations: recalled before it, kept after it |
//! | `redaction` | personal data: out before it is sent, back for whoever reads |
//! | `mending` | an answer that broke off is taken up again |
//! | `streams` | streams that are not tied to the connection they were asked for on |
//! | `socket` | the WebSocket door: many streams over one connection |
//! | `reply` | the client's side of a request: its answer, its heartbeats, its leaving |
//! | `connection` | one client connection: TLS, HTTP/1.1 or HTTP/2, keep-alive, idleness |
//! | `door` | its requests: heads, refusals, which path leads where |
//! | `ask`, `classes`, `references`, `generations`, `tenants` | what the scheduler is told of a request |
//! | `progress` | what streams produce, told while they do |
//! | `failure`, `oversize` | an attempt that failed; one that was refused for its size |
//! | `key`, `query` | a client key's hash; what a query says |
//! | `costs` | what was used and what it costs, kept; budgets |
//! | `house`, `plane` | what all threads share; what one thread owns |
//! | `gateway` | starting, accepting, draining |
//! | `admin`, `listing`, `domains`, `alarms` | the operator's door; its pages of streams and of quota domains; what is said at once |
//! | `settings` | every number, with its reason |

mod accepting;
mod admin;
mod admit;
mod alarms;
mod answer;
mod ask;
mod attempt;
mod classes;
mod connection;
mod costs;
mod decode;
mod domains;
mod door;
mod endpoint;
mod exchange;
mod failure;
mod gateway;
mod generations;
mod house;
mod identify;
mod key;
mod listing;
mod memory;
mod mending;
mod operators;
mod oversize;
mod passing;
mod path;
mod plan;
mod plane;
mod progress;
mod query;
pub mod redaction;
mod references;
mod relay;
mod renewal;
mod reply;
mod settings;
mod settle;
mod socket;
mod streams;
mod succession;
mod tenants;

pub use admin::serve as serve_admin;
pub use answer::public_codes;
pub use costs::UsageFile;
pub use gateway::{Drained, Gateway, SetupError};
pub use key::{KeyHash, KeyHashError};
pub use operators::{Said, Wanted, Wish};
pub use settings::{
    ClientKey, Clocks, Concurrent, Conversations, Costs, Divergent, Keep, Limits, Organisation, PassThrough,
    QuotaByClass, Settings, Sockets, TenantSettings, Workspace,
};
pub use succession::{Claim, Claimed};
