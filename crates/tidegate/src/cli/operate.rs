//! What operators ask a running gateway: its streams, its costs.

use clap::{Args, Subcommand, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Where the gateway's admin port is.
#[derive(Args, Clone, Debug, Default)]
pub struct AdminPlace {
    /// The gateway's admin address. [default: that of --config, else 127.0.0.1:4601]
    #[arg(long, value_name = "ADDRESS", global = true)]
    pub admin: Option<SocketAddr>,
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
