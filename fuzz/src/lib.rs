//! The bodies of the fuzz targets: the very files that proptest runs on stable.

#![allow(missing_docs, reason = "the files say it")]

#[path = "../../crates/transport/tests/any_bytes/codec.rs"]
pub mod codec;
#[path = "../../crates/transport/tests/any_bytes/connections.rs"]
pub mod connections;
#[path = "../../crates/redact/tests/any_text/bodies.rs"]
pub mod redact;
