//! The commands, one file each.

mod activation;
mod admin;
mod ask;
mod bench;
mod chat;
mod check_config;
mod check_upstream;
mod compare;
mod conversations;
mod greet;
mod grid;
mod hand_over;
mod health;
mod key;
mod notify;
mod page;
mod peers;
mod proc;
mod quota;
mod redact;
mod reload;
mod reseal;
mod resume;
mod scenarios;
mod scratch;
mod serve;
mod signals;
mod simulate;
mod soak;
mod sockets;
mod stage;
mod storm;
mod streams;
mod usage;

use crate::cli::{Cli, Command, Key};
use crate::config::Config;
use crate::{panics, process};
use std::fmt;
use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use tidegate_transport::TcpListen;

/// Why a command did not do what it was asked to.
#[derive(Debug)]
pub struct Failed(String);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Failed {
    fn because(e: impl fmt::Display) -> Self {
        Failed(e.to_string())
    }
}

/// Writes a line for the user. A closed standard output (a pipe to `head`) is not an error.
fn say(line: impl fmt::Display) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

fn env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|v| !v.is_empty())
}

/// Listens, or says what is in the way.
fn listen(address: SocketAddr, flag: &str) -> Result<TcpListen, Failed> {
    TcpListen::bind(address).map_err(|e| {
        Failed(format!("cannot listen on {address}: {e}; choose another address with {flag} (port 0 takes a free one)"))
    })
}

/// Runs the command.
pub fn run(cli: Cli) -> Result<ExitCode, Failed> {
    panics::withhold();
    let room = process::prepare().map_err(|e| Failed(format!("this process's limits cannot be set: {e}")))?;
    let done = match cli.command {
        Command::Redact(flags) => return redact::run(&flags),
        Command::Serve(flags) => serve::run(&flags, room),
        Command::Simulate(flags) => simulate::run(&flags),
        Command::Bench(flags) => bench::run(&flags),
        Command::Chat(flags) => chat::run(&flags),
        Command::CheckConfig { file } => check_config::run(&file),
        Command::ConfigSchema => {
            say(format_args!("{:#}", Config::schema()));
            Ok(())
        }
        Command::Health(flags) => health::run(&flags),
        Command::CheckUpstream(flags) => check_upstream::run(&flags),
        Command::Key { command: Key::New(flags) } => key::new(&flags),
        Command::Key { command: Key::Revoke(flags) } => key::revoke(&flags),
        Command::Key { command: Key::List(place) } => key::list(&place),
        Command::Streams(flags) => streams::run(&flags),
        Command::Usage(flags) => usage::run(&flags),
        Command::Key { command: Key::Vault { file } } => key::vault(&file),
        Command::Key { command: Key::Reseal(flags) } => reseal::run(&flags),
    };
    done.map(|()| ExitCode::SUCCESS)
}
