//! Nothing personal leaves: what is personal or secret in a request is found and replaced, and put
//! back in the answer.
//!
//! ```text
//!   request ─▶ Filter::mask_request ─▶ masked body ─▶ log, window, upstream
//!                    │     ▲
//!                    ▼     │ known values, tokens
//!                  Vault (sealed records, one per value)
//!                    │
//!                    ▼
//!   reader ◀─ StreamRestorer, message ◀─ masked answer
//! ```
//!
//! *Detection* ([`detect`]) is what finds; [`rules`] say what is done with it; [`mask`] does it, to a
//! request or a text; [`vault`] keeps what was taken out; [`restore`] puts it back for a reader. What
//! is logged and stored in between is masked.
//!
//! Pure and synchronous: keys and kept records are arguments, and nothing here reads a clock, a file
//! or dice.

mod checks;
pub mod detect;
mod json;
pub mod kind;
pub mod mask;
pub mod restore;
pub mod rules;
mod shadow;
pub mod token;
pub mod vault;
mod zone;
