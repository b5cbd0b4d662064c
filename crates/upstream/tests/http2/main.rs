//! Pools of HTTP/2 connections against scripted peers, in memory and in virtual time.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its scene should stop")]

mod lifetime;
mod refusals;
mod scene;
mod slots;
