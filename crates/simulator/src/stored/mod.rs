//! What the API keeps for a workspace: files, skills, batches.
//!
//! Each workspace has a shelf of its own, and what stands on one is a 404 for every other. Ids come
//! from the seed and the order of things made. Nothing here has a limit per minute, as the rest of the
//! API has; what is held is bounded in bytes and in number.
//!
//! | file | what it plays |
//! |---|---|
//! | `files`, `skills`, `batches` | the three doors |
//! | `multipart` | bodies of uploads |
//! | `paging` | lists, in both of the API's ways |

mod batches;
mod files;
mod multipart;
mod paging;
mod skills;

use crate::answer::{Answer, Body, No};
use crate::callers::Caller;
use crate::directive::Directives;
use crate::envelope::Refusal;
use crate::simulator::{RequestFacts, Simulator, path_of};
use crate::validate::Version;
use bytes::Bytes;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;
use tidegate_base::{Moment, rfc3339};

/// Bytes of files and skills that are held for all workspaces together; the API's 1 TB in small.
const STORED_BYTES_MAX: u64 = 1 << 30;
/// Things of one kind on one shelf.
const THINGS_MAX: usize = 10_000;

/// The largest body that a path takes: files 500 MB, batches 256 MB, everything else as a message.
pub(crate) fn body_bytes_max(path: &str) -> Option<usize> {
    match path {
        // What is around a file in its body counts as well.
        _ if path.starts_with("/v1/files") => Some(501_000_000),
        _ if path.starts_with("/v1/messages/batches") => Some(256_000_000),
        _ => None,
    }
}

/// One workspace's things, the oldest first.
#[derive(Clone, Debug, Default)]
struct Shelf {
    files: Vec<files::File>,
    skills: Vec<skills::Skill>,
    batches: Vec<batches::Batch>,
}

/// Everything that is kept.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    shelves: BTreeMap<String, Shelf>,
    bytes: u64,
    made: u64,
    epoch_s: u64,
}

/// A request to one of these doors.
struct Call<'a> {
    now: Moment,
    facts: &'a RequestFacts<'a>,
    /// What stands behind the collection's name.
    rest: Vec<&'a str>,
    query: Vec<(String, String)>,
    workspace: String,
    version: Version,
    /// The beta header of this door was sent, which asks for its old shapes.
    is_beta: bool,
    /// How long a batch takes.
    batch: Option<Duration>,
}

/// A good answer.
struct Given {
    content_type: String,
    bytes: Bytes,
}

impl From<Value> for Given {
    fn from(value: Value) -> Self {
        Given { content_type: "application/json".to_owned(), bytes: value.to_string().into() }
    }
}

fn missing(what: &str, id: &str) -> Refusal {
    Refusal::new(404, format!("{what} not found: {id}"))
}

fn not_allowed() -> Refusal {
    Refusal::new(405, "Method Not Allowed")
}

impl Stored {
    /// Nothing yet; `epoch_s` is the wall time at moment zero.
    pub(crate) fn new(epoch_s: u64) -> Self {
        Stored { shelves: BTreeMap::new(), bytes: 0, made: 0, epoch_s }
    }

    fn wall(&self, at: Moment) -> String {
        rfc3339(self.epoch_s + at.since(Moment::ZERO).as_secs())
    }

    /// Takes so many more bytes in.
    fn hold(&mut self, bytes: usize) -> Result<(), Refusal> {
        let after = self.bytes + bytes as u64;
        if after > STORED_BYTES_MAX {
            let refusal = Refusal::invalid("Storage quota exceeded");
            return Err(Refusal { code: Some("storage_quota_exceeded"), ..refusal });
        }
        self.bytes = after;
        Ok(())
    }

    fn let_go(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes as u64);
    }

    fn shelf(&mut self, workspace: &str) -> &mut Shelf {
        self.shelves.entry(workspace.to_owned()).or_default()
    }
}

impl Simulator {
    /// A new id of this kind.
    fn new_id(&mut self, kind: &str) -> String {
        let number = self.stored.made;
        self.stored.made += 1;
        format!("{kind}_01{:016x}{number:06x}", self.prng("stored", number).next_u64())
    }

    /// Answers at one of these doors.
    pub(crate) fn stored(
        &mut self,
        now: Moment,
        facts: &RequestFacts<'_>,
        caller: &Caller,
        version: Version,
    ) -> Result<Answer, No> {
        let directives = Directives::parse(facts.all("simulate"))?;
        let all: Vec<&str> = path_of(facts.target).trim_start_matches("/v1/").split('/').collect();
        let (door, rest) = if all.starts_with(&["messages"]) { (all[1], &all[2..]) } else { (all[0], &all[1..]) };
        let beta = if door == "skills" { "skills-2025-10-02" } else { "files-api-2025-04-14" };
        let is_beta = facts.all("anthropic-beta").any(|v| v.split(',').any(|one| one.trim() == beta));
        let query = facts.target.split_once('?').map_or("", |(_, query)| query);
        let call = Call {
            now,
            facts,
            rest: rest.to_vec(),
            query: paging::read(query),
            workspace: caller.workspace_id(),
            version,
            is_beta,
            batch: directives.batch,
        };
        let given = match door {
            "files" => self.files(&call)?,
            "skills" => self.skills(&call)?,
            _ => self.batches(&call, &directives)?,
        };
        Ok(Answer {
            status: 200,
            headers: vec![("content-type", given.content_type)],
            body: Body::Whole { bytes: given.bytes, reply: None },
            after: Duration::ZERO,
            faults: Vec::new(),
            refusal: None,
        })
    }
}
