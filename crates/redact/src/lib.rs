//! Nothing personal leaves: what is personal or secret in a request is found and replaced, and put
//! back in the answer.
//!
//! Pure: keys and what was kept are arguments, and nothing here reads a clock, a file or dice.

mod checks;
pub mod detect;
pub mod kind;
mod shadow;
