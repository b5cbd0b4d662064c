//! Every number the path runs under, with its default and its reason. `docs/limits.md` and
//! `tidegate.example.toml` list the same ones for operators.

use crate::key::KeyHash;
use crate::redaction::Redaction;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tidegate_conversation::budget::Rules as WindowRules;
use tidegate_observe::{Budget, Prices};
use tidegate_schedule::{Band, Limits as Quota, OrgSpec, Rules, TenantRules, WorkspaceId};
use tidegate_upstream::{Lane, PoolRules, Transport};

/// What the gateway is told at start.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The clocks.
    pub clocks: Clocks,
    /// The limits.
    pub limits: Limits,
    /// How requests wait and how failed attempts are repeated.
    pub schedule: Rules,
    /// Idle connections.
    pub pool: PoolRules,
    /// Where requests go.
    pub organisations: Vec<Organisation>,
    /// Where requests go whose clients bring an upstream credential of their own: a lane without a
    /// key. `None`: they may not.
    pub own_credentials: Option<Arc<Lane>>,
    /// Who may ask. Empty: anybody on this machine, and nobody else; or nobody, if `keys_only`.
    pub keys: Vec<ClientKey>,
    /// Whether nobody is served without a key, even where there are none.
    pub keys_only: bool,
    /// What tenants may use; one that is not named here has no limits of its own.
    pub tenants: Vec<TenantSettings>,
    /// Everything else of the API.
    pub pass_through: PassThrough,
    /// WebSockets.
    pub sockets: Sockets,
    /// Conversations, where there is a log for them.
    pub conversations: Conversations,
    /// What is done with personal data.
    pub redaction: Redaction,
    /// What tokens cost, and how long it is known what was used.
    pub costs: Costs,
    /// Seed of ids and jitter; World gives its own.
    pub seed: u64,
}

/// Limits by class of models, as `tidegate_wire::models::class` names them; `default` stands for
/// every class of models that is not named.
pub type QuotaByClass = BTreeMap<String, Quota>;

/// An upstream organisation and its keys.
#[derive(Clone, Debug, Default)]
pub struct Organisation {
    /// Its name in metrics and logs.
    pub name: String,
    /// Its keys.
    pub lanes: Vec<Arc<Lane>>,
    /// The workspace of each key, by its place in `workspaces`; what is missing or `None` is the
    /// default one.
    pub lane_workspaces: Vec<Option<WorkspaceId>>,
    /// Keys that are used no more, by number; they came with earlier settings.
    pub closed: BTreeSet<u16>,
    /// Its workspaces, but for the default one.
    pub workspaces: Vec<Workspace>,
    /// What it may use. What is not known is learned from its answers.
    pub limits: QuotaByClass,
    /// Whether `max_tokens` is charged up front against its output limit.
    pub reserves_output: bool,
    /// What it calls models, by the names that clients use; `*` is every name that is not there.
    pub models: BTreeMap<String, String>,
}

/// A workspace of an organisation.
#[derive(Clone, Debug, Default)]
pub struct Workspace {
    /// Its name in the configuration.
    pub name: String,
    /// What it may use, beside the organisation's limits.
    pub limits: QuotaByClass,
}

impl Settings {
    /// Whether all that upstreams understand is a prompt. Such a one stands beside no others: what may
    /// be asked could not be told before a request has its place.
    pub(crate) fn speaks_prompts(&self) -> bool {
        let spoken =
            |o: &Organisation| o.open_keys().any(|key| o.lanes[usize::from(key)].transport() == Transport::Prompt);
        self.organisations.iter().any(spoken)
    }
}

impl Organisation {
    /// An organisation of which nothing is known but its keys.
    pub fn new(name: impl Into<String>, lanes: Vec<Arc<Lane>>) -> Self {
        Organisation { name: name.into(), lanes, ..Organisation::default() }
    }

    /// What it calls the model that clients call `name`, if that is something else.
    pub fn their_model(&self, name: &str) -> Option<&str> {
        let theirs = self.models.get(name).or_else(|| self.models.get("*"))?;
        (theirs != name && !name.is_empty()).then_some(theirs)
    }

    /// The workspace of the key numbered `key`.
    pub(crate) fn workspace(&self, key: u16) -> Option<WorkspaceId> {
        self.lane_workspaces.get(usize::from(key)).copied().flatten()
    }

    /// Its keys that are used, by number.
    pub(crate) fn open_keys(&self) -> impl Iterator<Item = u16> {
        (0..self.lanes.len()).map(|key| key as u16).filter(|key| !self.closed.contains(key))
    }

    /// Whether it has any: one of earlier settings has none.
    pub(crate) fn is_open(&self) -> bool {
        self.lanes.is_empty() || self.open_keys().next().is_some()
    }

    /// What the scheduler is told of it.
    pub(crate) fn spec(&self) -> OrgSpec {
        OrgSpec {
            closed: self.closed.clone(),
            keys: (0..self.lanes.len()).map(|key| self.workspace(key as u16)).collect(),
            workspaces: self.workspaces.len() as u16,
            reserves_output: self.reserves_output,
        }
    }
}

/// What a tenant may use of us.
#[derive(Clone, Debug)]
pub struct TenantSettings {
    /// Its name, as client keys have it; `default` where there are none.
    pub name: Arc<str>,
    /// Weight and limits.
    pub rules: TenantRules,
    /// The band of its requests that name none; `None` is the usual one.
    pub band: Option<Band>,
    /// Most tokens of a request of its conversations; `None` is what holds for all.
    pub window: Option<u64>,
    /// What is kept of its conversations; what is `None` is as for all.
    pub keep: Keep,
    /// What it may spend in a month; `None` is no limit.
    pub budget: Option<Budget>,
}

/// What is known of money.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Costs {
    /// What tokens cost, by model.
    pub prices: Prices,
    /// Days that what was used is kept in a file: a year and what an audit of it takes.
    pub kept_days: u32,
}

impl Default for Costs {
    fn default() -> Self {
        Costs { prices: Prices::default(), kept_days: 400 }
    }
}

/// How much is kept of a tenant's conversations; `None` is everything. What changed longest ago goes
/// first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// Since the last change.
    pub age: Option<Duration>,
    /// Conversations.
    pub conversations: Option<u64>,
    /// Bytes of their turns.
    pub bytes: Option<u64>,
}

/// What becomes of a body that says something else than its conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Divergent {
    /// It is refused.
    Refuse,
    /// It makes another conversation of what both have.
    Fork,
}

/// What becomes of a turn while another one of its conversation is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Concurrent {
    /// It waits.
    Wait,
    /// It is refused.
    Refuse,
}

/// How conversations are kept and windows made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conversations {
    /// Most tokens of one request, answer included; never more than the model's own. Less than most
    /// models take: past some point a longer window costs more than it helps.
    pub window: u64,
    /// What becomes of a body that says something else than what is stored.
    pub divergence: Divergent,
    /// What becomes of a second turn at once.
    pub concurrent: Concurrent,
    /// Whether the history is searched for what suits a new turn.
    pub recall: bool,
    /// Whether summaries are made ahead of a cut, where they cost less than they save.
    pub summaries: bool,
    /// Bytes of conversations in memory; those in use are among them.
    pub memory_bytes: u64,
    /// When and how far windows are cut.
    pub rules: WindowRules,
    /// What a tenant keeps.
    pub keep: Keep,
    /// The file is rewritten at most so often, after something was deleted: meanwhile turns wait.
    pub compact_every: Duration,
}

impl Default for Conversations {
    fn default() -> Self {
        Conversations {
            window: 200_000,
            divergence: Divergent::Refuse,
            concurrent: Concurrent::Wait,
            recall: true,
            summaries: true,
            memory_bytes: 256 << 20,
            rules: WindowRules::default(),
            keep: Keep::default(),
            compact_every: Duration::from_secs(24 * 60 * 60),
        }
    }
}

/// The WebSocket door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sockets {
    /// Origins of pages that may open a socket, beside those of our own host.
    pub origins: Vec<String>,
    /// The model of prompts that name none.
    pub model: String,
    /// The longest answer to a prompt that says nothing of it, tokens.
    pub max_tokens: u64,
    /// Whether `?echo=true` makes a socket say back what it is told; for conformance tests.
    pub echo: bool,
}

impl Default for Sockets {
    fn default() -> Self {
        Sockets { origins: Vec::new(), model: "claude-sonnet-5-5".to_owned(), max_tokens: 4096, echo: false }
    }
}

/// Paths of the API that Tidegate passes on as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassThrough {
    /// Whether it does.
    pub enabled: bool,
    /// Our own address, where clients know another one than the host they name; with no slash at its
    /// end.
    pub public_url: Option<String>,
    /// Whether TLS is spoken to clients.
    pub speaks_tls: bool,
}

impl Default for PassThrough {
    fn default() -> Self {
        PassThrough { enabled: true, public_url: None, speaks_tls: false }
    }
}

/// A client's key.
#[derive(Clone, Debug)]
pub struct ClientKey {
    /// Whose it is.
    pub tenant: Arc<str>,
    /// What the key hashes to.
    pub hash: KeyHash,
    /// From when on it is no longer taken, wall clock, ms since 1970.
    pub expires_ms: Option<u64>,
}

/// How long things may take (design section 6). Name, TCP and TLS are the dialler's clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clocks {
    /// A client's TLS handshake.
    pub client_tls: Duration,
    /// A request's head, from its first byte to its blank line.
    pub client_head: Duration,
    /// A request's body: no byte for so long.
    pub client_body_stall: Duration,
    /// A client that does not read: nothing written for so long.
    pub client_write_stall: Duration,
    /// Between requests on one connection.
    pub client_idle: Duration,
    /// Silence towards a streaming client after which it gets a `ping`.
    pub heartbeat: Duration,
    /// The upstream stops taking the request's body.
    pub upload_stall: Duration,
    /// Last byte of the request to first byte of the answer; streams only.
    pub first_byte: Duration,
    /// The same for large inputs.
    pub first_byte_large: Duration,
    /// No byte from the upstream. HTTP/1.1 cannot be probed, so it waits long; a peer that vanished is
    /// noticed before, by the kernel's keep-alive.
    pub gap: Duration,
    /// No byte from the upstream over HTTP/2, after which its connection is asked for a sign of
    /// life. No kill: healthy streams pause longer than that.
    pub probe: Duration,
    /// How long that sign may take.
    pub probe_answer: Duration,
    /// No content event.
    pub progress: Duration,
    /// The same where the model thinks unseen.
    pub progress_unseen: Duration,
    /// The whole request, unless the client says otherwise; never under a stream that progresses.
    pub whole: Duration,
    /// How long a drain waits for streams to end.
    pub drain: Duration,
    /// How long a process that has handed over waits for its streams to end.
    pub hand_over: Duration,
    /// Between two pings on a WebSocket.
    pub socket_ping: Duration,
    /// From our close of a WebSocket to the client's.
    pub socket_close: Duration,
    /// How long a resumable stream goes on without a reader.
    pub detach_grace: Duration,
    /// How long it can still be read after its end.
    pub stream_kept: Duration,
    /// How long a rejected upstream key is left alone.
    pub key_rejected: Duration,
    /// How often an organisation that has reached its spend cap is tried again; the first of the
    /// month comes sooner if it is nearer.
    pub spend_cap: Duration,
}

impl Default for Clocks {
    fn default() -> Self {
        let s = Duration::from_secs;
        Clocks {
            client_tls: s(5),
            client_head: s(10),
            client_body_stall: s(10),
            client_write_stall: s(30),
            client_idle: s(60),
            heartbeat: s(15),
            upload_stall: s(10),
            first_byte: s(30),
            first_byte_large: s(120),
            gap: s(120),
            probe: s(10),
            probe_answer: s(5),
            progress: s(180),
            progress_unseen: s(600),
            whole: s(600),
            drain: s(30),
            hand_over: s(60 * 60),
            socket_ping: s(15),
            socket_close: s(5),
            detach_grace: s(60),
            stream_kept: s(300),
            key_rejected: s(60),
            spend_cap: s(15 * 60),
        }
    }
}

/// How much there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// One request's body, inflated, bytes. The API's own limit is 32 MB.
    pub body_bytes: u64,
    /// The body of a request about files: the API's 500 MB, and what is around a file in it.
    pub file_bytes: u64,
    /// The body of a request about batches: the API's 256 MB.
    pub batch_bytes: u64,
    /// All bodies held at once, bytes.
    pub bodies_bytes: u64,
    /// From this size of body on, an input counts as large (first-byte clock). About 100k tokens.
    pub large_body_bytes: u64,
    /// What one slow reader may leave unread, merged, bytes.
    pub backlog_bytes: u64,
    /// From this size on a backlog is merged, bytes.
    pub backlog_merge_bytes: u64,
    /// All backlogs and assembled answers held at once, bytes.
    pub backlogs_bytes: u64,
    /// What is kept of one resumable stream, bytes: some million tokens of text. The oldest goes first.
    pub journal_bytes: u64,
    /// All resumable streams held at once, bytes.
    pub journals_bytes: u64,
    /// Bytes of all durable streams in the conversation log together.
    pub durable_bytes: u64,
    /// One answer that is assembled or passed whole, bytes.
    pub answer_bytes: u64,
    /// Client connections.
    pub connections: usize,
    /// Streams that share a connection or outlive it: HTTP/2 streams, streams of a WebSocket, those
    /// with `tidegate-resume`. They take memory and no file, so they are counted apart.
    pub streams: usize,
    /// HTTP/2 streams of one connection. Twice what RFC 9113 asks for at least: some clients send
    /// all they have over one connection, and one that breaks takes all its streams along.
    pub connection_streams: u32,
    /// A buffered request asking for at most so many output tokens is passed through as it is: at
    /// the slowest usual pace (20 tokens/s) it ends within a minute. Longer ones are streamed
    /// upstream and assembled.
    pub passthrough_tokens: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            body_bytes: 32 << 20,
            file_bytes: 501 << 20,
            batch_bytes: 256 << 20,
            bodies_bytes: 512 << 20,
            large_body_bytes: 400 << 10,
            backlog_bytes: 1 << 20,
            backlog_merge_bytes: 16 << 10,
            backlogs_bytes: 256 << 20,
            journal_bytes: 4 << 20,
            journals_bytes: 256 << 20,
            durable_bytes: 1 << 30,
            answer_bytes: 32 << 20,
            connections: 32_768,
            streams: 32_768,
            connection_streams: 256,
            passthrough_tokens: 1024,
        }
    }
}
