//! Tidegate as a library: the configuration and the commands of the binary.
//!
//! This is the only room that reads the environment, arguments and configuration files, and the
//! only one that knows all the others. To embed the gateway, build [`tidegate_gateway::Settings`]
//! from a [`config::Config`] or by hand and hand them to [`tidegate_gateway::Gateway`].

pub mod cli;
mod commands;
pub mod config;
mod keys_file;
mod log;
mod panics;
mod process;
mod request_log;
mod withheld;

pub use commands::{Failed, run};
