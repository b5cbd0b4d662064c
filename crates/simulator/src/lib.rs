//! The Claude API as a pure model: replies, quotas, a strict validator and faults, all from a seed.
#![allow(dead_code)]

mod bucket;
mod calendar;
mod catalog;
mod directive;
mod envelope;
mod fault;
mod pace;
mod quota;
mod signature;
mod tokens;
mod validate;
