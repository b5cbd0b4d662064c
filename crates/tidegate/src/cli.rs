//! What can be said on the command line. What a flag says holds in place of the file, the file in place
//! of the environment, the environment in place of the defaults.

mod operate;
mod redact;

pub use operate::{AdminAddress, AdminPlace, Streams, StreamsCommand, Usage, UsageName};
pub use redact::{Redact, RedactPolicy, RedactStyle, RedactUnscannable, Reseal};

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;
use tidegate_base::{ByteSize, Span};

/// A gateway for services on the Claude API, with a simulator of it and a bench.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version)]
pub struct Cli {
    #[command(subcommand)]
    /// What to do.
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the gateway.
    Serve(Serve),
    /// Run the simulated API alone.
    Simulate(Simulate),
    /// Measure a Claude-compatible endpoint.
    Bench(Box<Bench>),
    /// Talk to a model in a conversation that a gateway keeps.
    Chat(Chat),
    /// Find personal data and secrets in files or a pipe, and put tags in their place.
    Redact(Redact),
    /// Check a configuration file and say what it means.
    CheckConfig {
        /// The file.
        file: PathBuf,
    },
    /// Print the JSON Schema of the configuration file, for editors and checks.
    ConfigSchema,
    /// Ask a running gateway on this machine whether it is well: for health checks where there is no curl.
    Health(Health),
    /// Try every upstream key, step by step: name, proxy, TCP, TLS, key, one tiny stream; costs some ten tokens each.
    CheckUpstream(CheckUpstream),
    /// Show the live requests of a running gateway and the last that are over: on a terminal anew each
    /// second, else once. Or cancel some.
    Streams(Streams),
    /// Show what a running gateway used and what it cost, by day, tenant and model, and its budgets.
    Usage(Usage),
    /// Make client keys, and the keys of the vault.
    Key {
        #[command(subcommand)]
        /// What to do with keys.
        command: Key,
    },
}

/// `tidegate health`
#[derive(Args, Debug)]
pub struct Health {
    /// Where it is.
    #[command(flatten)]
    pub place: AdminPlace,
    /// Ask whether it takes new requests, in place of whether it is alive: one that drains is alive and does not.
    #[arg(long)]
    pub ready: bool,
}

/// `tidegate check-upstream`
#[derive(Args, Debug)]
pub struct CheckUpstream {
    /// Configuration file with the upstreams. [default: ANTHROPIC_API_KEY and the API itself]
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Upstream URL, in place of the configuration's. [default: https://api.anthropic.com]
    #[arg(long)]
    pub upstream: Option<String>,
    /// Upstream key. Other users of this machine can see arguments: prefer ANTHROPIC_API_KEY.
    #[arg(long)]
    pub upstream_key: Option<String>,
    /// Model to ask for one word.
    #[arg(long, default_value = "claude-haiku-5-5")]
    pub model: String,
}

/// Commands about keys.
#[derive(Debug, Subcommand)]
pub enum Key {
    /// Make a new client key and print it, once. With --config or --file it is added to the file of keys,
    /// and a running gateway takes it within two seconds; else the lines for the configuration are printed.
    New(NewKey),
    /// Take a client key away: requests with it are refused within two seconds, streams under way end as
    /// they began.
    Revoke(RevokeKey),
    /// List the client keys: how each begins, whose it is, what for, since when and until when. Never a key.
    List(KeysPlace),
    /// Make a key for redaction: writes it to a new file that only its owner can read.
    Vault {
        /// The file; it must not be there.
        file: PathBuf,
    },
    /// Seal what conversations keep for redaction anew, under the first of vault_keys; no gateway may
    /// have the file open. After it the other keys are needed no more.
    Reseal(Reseal),
}

/// Where the file of client keys is.
#[derive(Args, Clone, Debug)]
pub struct KeysPlace {
    /// Configuration that names the file, as `file` of [keys].
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// The file itself.
    #[arg(long, conflicts_with = "config")]
    pub file: Option<PathBuf>,
}

/// `tidegate key new`
#[derive(Args, Debug)]
pub struct NewKey {
    #[command(flatten)]
    /// Where it is added.
    pub place: KeysPlace,
    /// Whose key it will be.
    #[arg(long, default_value = "my-team")]
    pub tenant: String,
    /// What it is for, in your words.
    #[arg(long, default_value = "")]
    pub label: String,
    /// When it ends by itself, counted from now: "90 d", "12 h". [default: never]
    #[arg(long, value_name = "SPAN")]
    pub expires: Option<Span>,
}

/// `tidegate key revoke`
#[derive(Args, Debug)]
pub struct RevokeKey {
    #[command(flatten)]
    /// Where it is taken away.
    pub place: KeysPlace,
    /// How the key begins (as `key list` shows it), its label, or the whole key; it has to be the only one.
    #[arg(value_name = "PREFIX|LABEL|KEY")]
    pub which: String,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `tidegate serve`
#[derive(Args, Debug, Default)]
pub struct Serve {
    /// Configuration file (TOML); see tidegate.example.toml.
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Run against the built-in simulator: no key, no network.
    #[arg(long, conflicts_with_all = ["upstream", "upstream_key"])]
    pub simulate: bool,
    /// Scenario of the simulator: a name (see `tidegate simulate --list`) or a TOML file.
    #[arg(long, requires = "simulate")]
    pub scenario: Option<String>,
    /// Seed of the simulator: same seed, same request, same bytes.
    #[arg(long, requires = "simulate")]
    pub seed: Option<u64>,
    /// Where clients connect; port 0 takes a free one. [default: 127.0.0.1:4600]
    #[arg(long)]
    pub listen: Option<SocketAddr>,
    /// Certificate chain (PEM) of TLS towards clients, in place of the configuration's.
    #[arg(long, requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Its private key (PEM, not encrypted).
    #[arg(long, requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Where operators connect. [default: 127.0.0.1:4601]
    #[arg(long)]
    pub admin_listen: Option<SocketAddr>,
    /// Where the simulator listens. [default: 127.0.0.1:4610]
    #[arg(long, requires = "simulate")]
    pub simulate_listen: Option<SocketAddr>,
    /// Where the simulator tells the ground truth. [default: 127.0.0.1:4611]
    #[arg(long, requires = "simulate")]
    pub truth_listen: Option<SocketAddr>,
    /// Upstream URL, in place of the configuration's. [default: https://api.anthropic.com]
    #[arg(long)]
    pub upstream: Option<String>,
    /// Upstream key. Other users of this machine can see arguments: prefer ANTHROPIC_API_KEY.
    #[arg(long)]
    pub upstream_key: Option<String>,
    /// Keep conversations in this file, in place of the configuration's; it is made if it is not there.
    /// [default with --simulate: a scratch file]
    #[arg(long, value_name = "FILE")]
    pub conversations: Option<PathBuf>,
    /// What is done with personal data and secrets in requests, in place of `policy` of [redact]; what
    /// is said there of single kinds and tenants stays, but `off` is off for everybody. [default: off]
    #[arg(long, value_name = "POLICY")]
    pub redact: Option<RedactPolicy>,
    /// Take over from the process that listens there (at --listen, if no address is given): its sockets at
    /// once, its conversations one by one; it ends when its streams have.
    #[arg(
        long, value_name = "ADDRESS", num_args = 0..=1, require_equals = true, default_missing_value = "",
        conflicts_with = "simulate"
    )]
    pub upgrade: Option<String>,
    /// Data-plane threads. [default: one per core]
    #[arg(long)]
    pub threads: Option<u8>,
    /// How log lines look. [default: text]
    #[arg(long)]
    pub log_format: Option<LogFormat>,
    /// Least severe line that is logged: error, warn, info or debug. [default: info]
    #[arg(long)]
    pub log_level: Option<String>,
}

/// `tidegate simulate`
#[derive(Args, Debug)]
pub struct Simulate {
    /// A name (see --list) or a TOML file.
    #[arg(long, default_value = "calm")]
    pub scenario: String,
    /// Same seed, same request, same bytes.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// List the scenarios and stop.
    #[arg(long)]
    pub list: bool,
    /// Print the scenario as TOML, to copy and change, and stop.
    #[arg(long)]
    pub print: bool,
    /// Where the API listens; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:4610")]
    pub listen: SocketAddr,
    /// Where the ground truth is told.
    #[arg(long, default_value = "127.0.0.1:4611")]
    pub truth_listen: SocketAddr,
    /// Certificate chain (PEM): the API then speaks TLS.
    #[arg(long, requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Its private key (PEM, not encrypted).
    #[arg(long, requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Where a proxy listens that leads to the API: HTTP CONNECT and SOCKS5, any name.
    #[arg(long, value_name = "ADDRESS")]
    pub proxy_listen: Option<SocketAddr>,
    /// Who may use the proxy. [default: anybody]
    #[arg(long, value_name = "USER:PASSWORD", requires = "proxy_listen")]
    pub proxy_login: Option<String>,
}

/// `tidegate chat`
#[derive(Args, Debug)]
pub struct Chat {
    /// The gateway. [default: http://127.0.0.1:4600]
    #[arg(long)]
    pub url: Option<String>,
    /// Conversation to go on with, or to begin. [default: a new one]
    #[arg(long, value_name = "ID", value_parser = conversation)]
    pub conversation: Option<String>,
    /// Model to ask. [default: that of the last turn, or claude-sonnet-5-5]
    #[arg(long)]
    pub model: Option<String>,
    /// System prompt, sent with each turn.
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// The most output tokens of an answer.
    #[arg(long, value_name = "N", default_value_t = 4_096, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_tokens: u32,
    /// Send this, show the answer and leave.
    #[arg(long, value_name = "TEXT")]
    pub once: Option<String>,
    /// Start a gateway and the simulated API for this chat: no key, no network.
    #[arg(long, conflicts_with_all = ["url", "ca"])]
    pub simulate: bool,
    /// With --simulate: keep conversations in this file. [default: a scratch file that goes with the chat]
    #[arg(long, value_name = "FILE", requires = "simulate")]
    pub conversations: Option<PathBuf>,
    /// Over https, believe only the certificates in this PEM file.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
}

/// A conversation's id, as it can stand in a header.
fn conversation(text: &str) -> Result<String, String> {
    let fits = (1..=128).contains(&text.chars().count()) && !text.chars().any(char::is_control) && text.trim() == text;
    if fits {
        Ok(text.to_owned())
    } else {
        Err("1 to 128 characters, no control characters, no space at the ends".to_owned())
    }
}

/// What to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BenchMode {
    /// Buffered answers.
    Json,
    /// Streams.
    Sse,
    /// Streams over WebSockets.
    Websocket,
}

/// Who meets the quota in `bench --scenario`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BenchLeg {
    /// Straight to the API with all keys in turn; nothing is repeated.
    Direct,
    /// The same with the retries of the official SDKs.
    Sdk,
    /// The clients of `sdk`, through Tidegate.
    Tidegate,
}

/// What else the bench can do.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Measure Tidegate beside nginx and HAProxy on this machine.
    Peers(Peers),
    /// Load Tidegate for a long time and see whether anything grows or is left behind.
    Soak(Soak),
    /// Measure what conversations cost and what they save.
    Conversations(BenchConversations),
    /// Measure REST, SSE and WebSockets side by side, at an endpoint or at a Tidegate of its own.
    Compare(Compare),
    /// Measure what an SDK gets of each named scenario, alone and through Tidegate.
    Scenarios(Scenarios),
    /// Let a great many clients leave or cancel at random, and see what is left behind.
    Storm(Storm),
    /// Hold many WebSockets open at once, each with a stream; some stop reading.
    Sockets(Sockets),
    /// Read streams in pieces, from random cursors, and compare them with what was produced.
    Resume(Resume),
}

/// `tidegate bench scenarios`
#[derive(Args, Debug)]
pub struct Scenarios {
    /// Only these, separated by commas: names (see `tidegate simulate --list`) or TOML files. [default: all
    /// named ones]
    #[arg(long, value_delimiter = ',', value_name = "SCENARIO")]
    pub only: Vec<String>,
    /// How long requests are sent in each scenario; answers may take minutes more.
    #[arg(long, default_value = "60 s")]
    pub duration: Span,
    /// Seed of arrivals, prompts and faults.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Print every number as JSON.
    #[arg(long)]
    pub json: bool,
    /// Write a chart of it to this file.
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Write the result to this file as a page for docs/measurements.
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
}

/// `tidegate bench resume`
#[derive(Args, Debug)]
pub struct Resume {
    /// Streams to read.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub streams: u64,
    /// Readers at once.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=2_000))]
    pub readers: u16,
    /// Who loses what, where.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Write the result to this file as a page for docs/measurements.
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
}

/// `tidegate bench sockets`
#[derive(Args, Debug)]
pub struct Sockets {
    /// WebSockets, each with a stream.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u16).range(1..=20_000))]
    pub clients: u16,
    /// Besides them, such that stop reading, in the second half.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u16).range(1..=5_000))]
    pub stopped: u16,
    /// How long each half is measured; a heartbeat comes every 15 s.
    #[arg(long, default_value = "90 s")]
    pub duration: Span,
    /// Milliseconds between two events of a stream.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub event_ms: u32,
    /// Write the result to this file as a page for docs/measurements.
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
}

/// `tidegate bench storm`
#[derive(Args, Debug)]
pub struct Storm {
    /// How many have to leave.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub cancels: u64,
    /// Clients at once, of all ways together.
    #[arg(long, default_value_t = 240, value_parser = clap::value_parser!(u16).range(6..=9_000))]
    pub clients: u16,
    /// How often one leaves alone, each way, while it is measured how soon the upstream knows.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub alone: u16,
    /// Who leaves when.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Write the result to this file as a page for docs/measurements.
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
}

/// `tidegate bench compare`
#[derive(Args, Debug)]
pub struct Compare {
    /// Base URL of any Claude-compatible endpoint. [default: starts Tidegate with the simulator]
    pub url: Option<String>,
    /// Requests in flight at once.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub concurrency: u16,
    /// How long each way is measured.
    #[arg(long, default_value = "20 s")]
    pub duration: Span,
    /// How often all ways are measured, one after another; the median is shown.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=20))]
    pub rounds: u8,
    /// Key, sent as x-api-key. Never taken from the environment: the URL may be anybody's.
    #[arg(long, requires = "url")]
    pub key: Option<String>,
    /// Model to ask.
    #[arg(long, default_value = "claude-haiku-5-5")]
    pub model: String,
    /// The most output tokens to ask for.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_tokens: u32,
    /// Without a URL: the simulator's scenario, a TOML file. [default: a steady pace without limits]
    #[arg(long, value_name = "FILE", conflicts_with = "url")]
    pub scenario: Option<PathBuf>,
    /// Over https, believe only the certificates in this PEM file.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Write a chart of it to this file.
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Write the result to this file as a page for docs/measurements.
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
}

/// A part of `bench conversations`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ConversationsRow {
    /// Long conversations against the prompt cache, by who keeps the window.
    Cache,
    /// How far token estimates are off.
    Estimate,
    /// Turns beside the same requests without a conversation.
    Turns,
    /// A conversation that is not in memory.
    Recall,
    /// Memory with many conversations.
    Memory,
}

impl ConversationsRow {
    /// All of them, in the order of the page.
    pub const ALL: [ConversationsRow; 5] = [
        ConversationsRow::Cache,
        ConversationsRow::Estimate,
        ConversationsRow::Turns,
        ConversationsRow::Recall,
        ConversationsRow::Memory,
    ];
}

/// `tidegate bench conversations`
#[derive(Args, Debug)]
pub struct BenchConversations {
    /// How many conversations are held against the cache; ten times as many against the memory.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub talks: u16,
    /// Turns of each against the cache.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub turns: u16,
    /// Tokens of the window there; what is said grows with it.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(5_000..=200_000))]
    pub window: u64,
    /// Only these parts, separated by commas. [default: all]
    #[arg(long, value_delimiter = ',', value_enum)]
    pub only: Vec<ConversationsRow>,
    /// Where all texts come from.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Write the result to this file as a page for docs/measurements.
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
}

/// `tidegate bench soak`
#[derive(Args, Debug)]
pub struct Soak {
    /// How long the load lasts. From 5 on growth is judged; a run to keep has 30 or more.
    #[arg(long, default_value_t = 30.0, value_parser = soak_minutes)]
    pub minutes: f64,
    /// How many streams are open at once; everything else goes with it.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u16).range(20..=9_000))]
    pub streams: u16,
    /// Another build of Tidegate to load, in place of this one.
    #[arg(long, value_name = "FILE")]
    pub program: Option<PathBuf>,
    /// Least severe line that Tidegate logs; at its default it has a record for each request.
    #[arg(long, default_value = "info", value_parser = ["error", "warn", "info", "debug"])]
    pub log_level: String,
    /// Write the result to this file as a page for docs/measurements.
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
}

/// From six seconds to a week.
fn soak_minutes(text: &str) -> Result<f64, String> {
    let minutes = text.parse().ok().filter(|minutes| (0.1..=10_080.0).contains(minutes));
    minutes.ok_or_else(|| "a number of minutes from 0.1 to 10080".to_owned())
}

/// `tidegate bench peers`
#[derive(Args, Debug)]
pub struct Peers {
    /// How often everything is measured; ratios are taken within a round. [default: 5, or 1 with --quick]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub rounds: Option<u16>,
    /// A short look: few streams, short runs. Not for keeping.
    #[arg(long)]
    pub quick: bool,
    /// Only these rows, separated by commas (see --list).
    #[arg(long, value_delimiter = ',', value_name = "ROW")]
    pub only: Vec<String>,
    /// List the rows and stop.
    #[arg(long)]
    pub list: bool,
    /// Another gateway that runs here and sends to --upstream-listen: NAME=URL, its processor time
    /// and memory too with `,pid=N`, and a key for it with `,key=KEY`; may be repeated.
    #[arg(long = "peer", value_name = "NAME=URL[,pid=N][,key=KEY]", requires = "upstream_listen")]
    pub peers: Vec<String>,
    /// Where the simulator listens, for peers of yours. [default: a free port]
    #[arg(long)]
    pub upstream_listen: Option<SocketAddr>,
    /// Leave these out, separated by commas: nginx, haproxy, tidegate.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub without: Vec<String>,
    /// Least severe line that Tidegate logs; at its default it has a record for each request, the
    /// others log nothing.
    #[arg(long, default_value = "info", value_parser = ["error", "warn", "info", "debug"])]
    pub log_level: String,
    /// Write every number to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write the result to this file as a page for docs/measurements.
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
}

/// From a hundredth of the quota to a hundred times as much.
fn quota_times(text: &str) -> Result<f64, String> {
    let times = text.parse().ok().filter(|times| (0.01..=100.0).contains(times));
    times.ok_or_else(|| "a number from 0.01 to 100".to_owned())
}

/// `tidegate bench`
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Bench {
    #[command(subcommand)]
    /// Another thing to do than measuring one endpoint.
    pub command: Option<BenchCommand>,
    /// Base URL, for example http://127.0.0.1:4600
    #[arg(required_unless_present = "scenario")]
    pub url: Option<String>,
    /// Instead of a URL: start the simulator with this scenario (a name, see `tidegate simulate --list`,
    /// or a TOML file), offer it more than its quota, and show what the clients get.
    #[arg(long, conflicts_with_all = [
        "url", "mode", "concurrency", "rate", "even", "requests", "key", "model", "prompt", "max_tokens", "headers",
        "no_keep_alive", "threads", "ca", "stamps",
    ])]
    pub scenario: Option<String>,
    /// With --scenario: how many times the quota is offered. [default: the scenario's, or 2]
    #[arg(long, value_parser = quota_times)]
    pub times: Option<f64>,
    /// With --scenario: which ways to the API are measured, separated by commas. [default: direct,sdk,tidegate]
    #[arg(long, value_delimiter = ',', value_enum)]
    pub legs: Vec<BenchLeg>,
    /// With --scenario: write the result to this file as a page for docs/measurements.
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
    /// Buffered answers or streams.
    #[arg(long, value_enum, default_value_t = BenchMode::Sse)]
    pub mode: BenchMode,
    /// Requests in flight at once (closed loop), or connections at most (open loop).
    #[arg(long, default_value_t = 16)]
    pub concurrency: usize,
    /// Requests per second, whether answers come or not (open loop).
    #[arg(long)]
    pub rate: Option<f64>,
    /// Space an open loop's requests evenly instead of at random.
    #[arg(long, requires = "rate")]
    pub even: bool,
    /// How long to send. [default: 10 s unless --requests is given; 60 s with --scenario]
    #[arg(long)]
    pub duration: Option<Span>,
    /// How many requests to send.
    #[arg(long)]
    pub requests: Option<u64>,
    /// Key, sent as x-api-key. Never taken from the environment: the URL may be anybody's.
    #[arg(long)]
    pub key: Option<String>,
    /// Model to ask.
    #[arg(long, default_value = "claude-haiku-5-5")]
    pub model: String,
    /// Size of the prompt.
    #[arg(long, default_value = "200 B")]
    pub prompt: ByteSize,
    /// The most output tokens to ask for.
    #[arg(long, default_value_t = 256)]
    pub max_tokens: u32,
    /// A header line to add, `name: value`; may be repeated.
    #[arg(long = "header")]
    pub headers: Vec<String>,
    /// Open a new connection for each request.
    #[arg(long)]
    pub no_keep_alive: bool,
    /// Seed of arrivals and, with --scenario, of everything else.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Threads of the generator.
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// The longest a request may take. [default: 60 s; 120 s with --scenario, retries included]
    #[arg(long)]
    pub timeout: Option<Span>,
    /// Over https, believe only the certificates in this PEM file.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Events say when they were sent (`stamp = true` of a bare scenario, on this machine): tell how
    /// long they were on their way.
    #[arg(long)]
    pub stamps: bool,
    /// Print the report as JSON.
    #[arg(long)]
    pub json: bool,
}
