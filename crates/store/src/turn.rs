//! What the log holds, as values: addresses, turns, conversations, summaries, windows.

use crate::StoreError;

/// Longest name of a conversation, characters: fits a header and a URL.
pub(crate) const NAME_CHARS_MAX: usize = 128;
/// Longest name of a tenant, characters, as in the configuration.
const TENANT_CHARS_MAX: usize = 64;
/// Longest end user's id, bytes: the API takes 256 characters.
const END_USER_BYTES_MAX: usize = 512;
/// Longest model, stop reason or request id, bytes.
const LABEL_BYTES_MAX: usize = 256;
/// Longest scope of a vault, bytes: the longest name of a conversation.
const SCOPE_BYTES_MAX: usize = 4 * NAME_CHARS_MAX;
/// Largest turn, bytes: a request and an answer of 32 MiB each.
const TURN_BYTES_MAX: u64 = 64 << 20;
/// Largest summary and largest window state, bytes.
pub(crate) const BESIDE_BYTES_MAX: u64 = 1 << 20;
/// Most turns of a conversation: the API takes as many messages in one request.
pub(crate) const TURNS_MAX: u32 = 100_000;

/// Which conversation of which tenant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    tenant: String,
    name: String,
}

impl Address {
    /// The conversation that `tenant`'s clients call `name`: 1 to 128 characters, none of them control.
    pub fn new(tenant: &str, name: &str) -> Result<Self, StoreError> {
        check_text("the tenant's name", tenant, TENANT_CHARS_MAX)?;
        check_text("the conversation's id", name, NAME_CHARS_MAX)?;
        Ok(Address { tenant: tenant.to_owned(), name: name.to_owned() })
    }

    /// The tenant.
    pub fn tenant(&self) -> &str {
        &self.tenant
    }

    /// The client's own id of the conversation.
    pub fn name(&self) -> &str {
        &self.name
    }
}

fn check_text(what: &str, text: &str, chars_max: usize) -> Result<(), StoreError> {
    let fits = !text.is_empty() && text.chars().count() <= chars_max && !text.chars().any(char::is_control);
    let why = || StoreError::Invalid(format!("{what} must have 1 to {chars_max} characters and no control characters"));
    if fits { Ok(()) } else { Err(why()) }
}

/// Whether a tenant's name can be one.
pub(crate) fn check_tenant(tenant: &str) -> Result<(), StoreError> {
    check_text("the tenant's name", tenant, TENANT_CHARS_MAX)
}

/// How a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// With the answer's end.
    Complete,
    /// Before it, with what was passed on to the client.
    Interrupted,
    /// It was written without asking a model.
    Appended,
}

impl Status {
    pub(crate) fn code(self) -> i64 {
        match self {
            Status::Complete => 1,
            Status::Interrupted => 2,
            Status::Appended => 3,
        }
    }

    pub(crate) fn of_code(code: i64) -> Option<Self> {
        [Status::Complete, Status::Interrupted, Status::Appended].into_iter().find(|status| status.code() == code)
    }
}

/// Tokens as the API counted them; `None` where it did not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenCounts {
    /// Input after the last cache breakpoint.
    pub input: Option<u64>,
    /// Output.
    pub output: Option<u64>,
    /// Input written to the cache.
    pub cache_creation: Option<u64>,
    /// Input read from the cache.
    pub cache_read: Option<u64>,
}

/// What a turn says, and what is known about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TurnContent {
    /// How it ended.
    pub status: Status,
    /// The new messages, a JSON array as it came.
    pub request: Vec<u8>,
    /// The assistant's message, a JSON object as it came; `None` for messages that were only written.
    pub answer: Option<Vec<u8>>,
    /// SHA-256 of the request's body, to know a retry by.
    pub request_hash: Option<[u8; 32]>,
    /// `tidegate-request-id`.
    pub request_id: Option<String>,
    /// `metadata.user_id`.
    pub end_user: Option<String>,
    /// The model that answered.
    pub model: Option<String>,
    /// Why it stopped.
    pub stop_reason: Option<String>,
    /// What it used.
    pub tokens: TokenCounts,
}

impl TurnContent {
    /// Messages that are written without asking a model.
    pub fn appended(request: Vec<u8>) -> Self {
        TurnContent {
            status: Status::Appended,
            request,
            answer: None,
            request_hash: None,
            request_id: None,
            end_user: None,
            model: None,
            stop_reason: None,
            tokens: TokenCounts::default(),
        }
    }

    /// Bytes of the messages.
    pub fn bytes(&self) -> u64 {
        self.request.len() as u64 + self.answer.as_ref().map_or(0, |answer| answer.len() as u64)
    }

    /// Whether it may be kept; looks at everything but the JSON.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        let size = self.bytes();
        if size > TURN_BYTES_MAX {
            return Err(StoreError::TooLarge { what: "bytes of a turn", size, max: TURN_BYTES_MAX });
        }
        check_bytes("the end user's id", self.end_user.as_deref(), END_USER_BYTES_MAX)?;
        for (what, label) in [
            ("the model's name", &self.model),
            ("the stop reason", &self.stop_reason),
            ("the request's id", &self.request_id),
        ] {
            check_bytes(what, label.as_deref(), LABEL_BYTES_MAX)?;
        }
        let tokens = [self.tokens.input, self.tokens.output, self.tokens.cache_creation, self.tokens.cache_read];
        if tokens.iter().flatten().any(|count| i64::try_from(*count).is_err()) {
            return Err(StoreError::Invalid("a number of tokens is below 2^63".to_owned()));
        }
        if (self.status == Status::Appended) == self.answer.is_some() {
            return Err(StoreError::Invalid("a turn has an answer, unless it was only appended".to_owned()));
        }
        Ok(())
    }
}

/// Whether a text, if there is one, has 1 to `max` bytes.
pub(crate) fn check_bytes(what: &str, text: Option<&str>, max: usize) -> Result<(), StoreError> {
    match text {
        Some(text) if text.is_empty() || text.len() > max => {
            Err(StoreError::Invalid(format!("{what} must have 1 to {max} bytes")))
        }
        _ => Ok(()),
    }
}

/// A turn of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Its number, from 1.
    pub number: u32,
    /// When it was committed, wall clock, ms since 1970.
    pub created_ms: u64,
    /// What it says.
    pub content: TurnContent,
}

/// A turn that is to be appended.
#[derive(Clone, Debug)]
pub struct NewTurn {
    /// Where.
    pub address: Address,
    /// The number it must get, or `None` for the next.
    pub expected: Option<u32>,
    /// Now, wall clock, ms since 1970.
    pub now_ms: u64,
    /// What it says.
    pub content: TurnContent,
    /// The window it was asked with, to be kept beside it.
    pub window: Option<Vec<u8>>,
    /// What it was the first to tell of its conversation's vault.
    pub vault: Option<VaultRecords>,
}

impl NewTurn {
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        self.content.check()?;
        self.vault.as_ref().map_or(Ok(()), VaultRecords::check)
    }
}

/// Records of a conversation's vault: what stands behind the tokens in its texts. Sealed and opaque
/// here (`docs/formats/vault.md`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VaultRecords {
    /// The name under which its tokens are made: the conversation's first one, a fork keeps it.
    pub scope: String,
    /// The records, in the order in which they were told.
    pub records: Vec<VaultRecord>,
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VaultRecord {
    /// Whether its token is that of all the tenant's conversations.
    pub shared: bool,
    /// The record.
    pub content: Vec<u8>,
}

impl VaultRecords {
    /// Their bytes.
    pub fn bytes(&self) -> u64 {
        self.records.iter().map(|record| record.content.len() as u64).sum()
    }

    pub(crate) fn check(&self) -> Result<(), StoreError> {
        check_bytes("a vault's scope", Some(&self.scope), SCOPE_BYTES_MAX)?;
        let (size, max) = (self.bytes(), TURN_BYTES_MAX);
        if size > max {
            return Err(StoreError::TooLarge { what: "bytes of a turn's vault records", size, max });
        }
        Ok(())
    }
}

/// What a durable append tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The turn's number.
    pub number: u32,
    /// Bytes of the conversation with it.
    pub conversation_bytes: u64,
}

/// A conversation, without its turns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conversation {
    /// The client's id.
    pub name: String,
    /// When its first turn was committed, ms since 1970.
    pub created_ms: u64,
    /// When it last changed, ms since 1970; never goes back.
    pub updated_ms: u64,
    /// How many turns it has.
    pub turns: u32,
    /// Bytes of its turns and summaries.
    pub bytes: u64,
    /// The conversation it was forked from, and the last turn that was taken along.
    pub parent: Option<(String, u32)>,
}

/// A summary of some turns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// First turn it stands for.
    pub first_turn: u32,
    /// Last turn it stands for.
    pub last_turn: u32,
    /// When it was made, ms since 1970.
    pub created_ms: u64,
    /// Which model made it.
    pub model: String,
    /// Structured JSON.
    pub body: Vec<u8>,
}

impl Summary {
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        if self.body.len() as u64 > BESIDE_BYTES_MAX {
            let size = self.body.len() as u64;
            return Err(StoreError::TooLarge { what: "bytes of a summary", size, max: BESIDE_BYTES_MAX });
        }
        check_bytes("the model's name", Some(&self.model), LABEL_BYTES_MAX)?;
        if self.first_turn == 0 || self.first_turn > self.last_turn {
            return Err(StoreError::Invalid("a summary stands for turns, the first not after the last".to_owned()));
        }
        Ok(())
    }
}

/// A window's state as the conversation room wrote it; derived, and may be dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// How many turns there were.
    pub turns: u32,
    /// The state.
    pub state: Vec<u8>,
}

/// Of a conversation what was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// The conversation.
    pub conversation: Conversation,
    /// Turns, in order.
    pub turns: Vec<Turn>,
    /// From which turn to read on, if not all fitted.
    pub next: Option<u32>,
    /// All summaries, by their range.
    pub summaries: Vec<Summary>,
    /// The window, if one is kept.
    pub window: Option<Window>,
}

/// An integer of the database as an unsigned number: those that are kept are never negative.
pub(crate) fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// A number for the database. What does not fit is centuries away or was checked before.
pub(crate) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
