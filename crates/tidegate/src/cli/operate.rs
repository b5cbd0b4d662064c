//! What operators ask a running gateway: its streams, its costs.

use clap::{Args, Subcommand, ValueEnum};
use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;

/// Where an admin port is, as people write it: `127.0.0.1:4601`, `localhost:4601`, `http://host:4601/`. A name
/// may have several addresses; each is tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminAddress(pub Vec<SocketAddr>);

impl fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<String> = self.0.iter().map(SocketAddr::to_string).collect();
        f.write_str(&all.join(" or "))
    }
}

impl FromStr for AdminAddress {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.starts_with("https://") {
            return Err("the admin port speaks no TLS; write http:// or only host and port".to_owned());
        }
        let at = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        if let Ok(at) = at.parse() {
            return Ok(AdminAddress(vec![at]));
        }
        let has_port = at.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        if at.contains(['/', '@', '?']) || !has_port {
            return Err("write host and port and nothing behind them, such as 127.0.0.1:4601".to_owned());
        }
        let found: Vec<_> = at.to_socket_addrs().map_err(|e| format!("its address is not found: {e}"))?.collect();
        if found.is_empty() { Err("it has no address".to_owned()) } else { Ok(AdminAddress(found)) }
    }
}

/// Where the gateway's admin port is.
#[derive(Args, Clone, Debug, Default)]
pub struct AdminPlace {
    /// The gateway's admin address: host and port, with http:// or without. [default: that of --config, else
    /// 127.0.0.1:4601]
    #[arg(long, value_name = "ADDRESS", global = true)]
    pub admin: Option<AdminAddress>,
    /// Configuration file of the gateway, for its admin address.
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
}

/// `tidegate streams`
#[derive(Args, Clone, Debug)]
pub struct Streams {
    #[command(subcommand)]
    /// Another thing to do than showing them.
    pub command: Option<StreamsCommand>,
    #[command(flatten)]
    /// Where to ask.
    pub place: AdminPlace,
    /// Only turns of this conversation.
    #[arg(long, value_name = "ID")]
    pub conversation: Option<String>,
    /// Only those of this tenant.
    #[arg(long)]
    pub tenant: Option<String>,
    /// Only those in this phase: identify, decode, recall, admit, backoff, exchange, first_byte, relay,
    /// keep or settle; none that is over.
    #[arg(long)]
    pub phase: Option<String>,
    /// Only those over the upstream key with this label.
    #[arg(long, value_name = "LABEL")]
    pub key: Option<String>,
    /// Print the table once, on a terminal too.
    #[arg(long)]
    pub once: bool,
    /// Print what the admin port says, as JSON, once.
    #[arg(long)]
    pub json: bool,
}

/// `tidegate usage`
#[derive(Args, Debug)]
pub struct Usage {
    #[command(flatten)]
    /// Where to ask.
    pub place: AdminPlace,
    /// Only this tenant's.
    #[arg(long)]
    pub tenant: Option<String>,
    /// Only this model's.
    #[arg(long)]
    pub model: Option<String>,
    /// From this day on, UTC. [default: the first of its month]
    #[arg(long, value_name = "YYYY-MM-DD")]
    pub from: Option<String>,
    /// To this day, itself included. [default: today]
    #[arg(long, value_name = "YYYY-MM-DD")]
    pub to: Option<String>,
    /// Add up what only differs in the rest: `--by tenant`, `--by day,model`.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub by: Vec<UsageName>,
    /// Print what the admin port says, as JSON; with --by its rows added up.
    #[arg(long, conflicts_with = "csv")]
    pub json: bool,
    /// Print the rows as CSV.
    #[arg(long)]
    pub csv: bool,
}

/// What the rows of `tidegate usage` are told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum UsageName {
    /// The day, UTC.
    Day,
    /// The tenant.
    Tenant,
    /// The model, as it was asked for.
    Model,
    /// What became of the attempt: answered, retried, abandoned, or a summary.
    Kind,
}

/// What can be done to streams.
#[derive(Clone, Debug, Subcommand)]
pub enum StreamsCommand {
    /// Cancel streams; their clients are told.
    Cancel {
        /// Their ids, as the table shows them.
        #[arg(required = true)]
        ids: Vec<String>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_admin_port_is_said_in_any_of_the_usual_ways() {
        let read = |text: &str| text.parse::<AdminAddress>();
        let loopback = AdminAddress(vec![SocketAddr::from(([127, 0, 0, 1], 4601))]);
        for text in ["127.0.0.1:4601", "http://127.0.0.1:4601", "http://127.0.0.1:4601/", " 127.0.0.1:4601 "] {
            assert_eq!(read(text), Ok(loopback.clone()), "{text}");
        }
        assert_eq!(read("http://[::1]:7/").unwrap().0, ["[::1]:7".parse().unwrap()]);
        let named = read("http://localhost:4601/").unwrap().0;
        assert!(!named.is_empty() && named.iter().all(|at| at.ip().is_loopback() && at.port() == 4601));
        for (text, why) in [
            ("https://127.0.0.1:4601", "speaks no TLS"),
            ("localhost", "host and port"),
            ("http://localhost", "host and port"),
            ("localhost:4601/streams", "nothing behind them"),
            ("localhost:99999", "host and port"),
            ("", "host and port"),
        ] {
            assert!(read(text).unwrap_err().contains(why), "{text}");
        }
    }
}
