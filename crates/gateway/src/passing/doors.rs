//! Which paths are passed on, what they may carry, and which id a path names.
//!
//! A path goes upstream as it came, under a key of ours, so its segments are plain: nothing that
//! somebody on the way could read as another path (`..`, `%2F`, `\`) may hide in one. What Tidegate
//! serves itself never goes on, whatever stands behind it.

use crate::door::{Door, Ours};
use crate::settings::Limits;
use tidegate_wire::http::RequestHead;

/// Segments of a path; the API's longest have six.
const SEGMENTS_MAX: usize = 12;

const METHODS: &[&str] = &["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];

const fn passed(name: &'static str) -> Door {
    Door {
        name,
        methods: METHODS,
        allowed: "GET, HEAD, POST, PUT, PATCH, DELETE",
        has_body: true,
        has_model: false,
        can_stream: false,
        ours: Some(Ours::Upstream),
    }
}

const FILES: Door = passed("files");
const BATCHES: Door = passed("batches");
const SKILLS: Door = passed("skills");
const OTHER: Door = passed("other");

/// Collections that Tidegate serves itself.
const OURS: &[&str] = &["models", "conversations", "stream", "streams"];

/// Words that decide what becomes of a path, beside those.
const DECIDING: &[&str] = &["messages", "count_tokens", "batches", "files", "skills", "organizations", "oauth"];

/// Whether a segment is a deciding word in other letters: to a server that does not tell small ones
/// from capitals it is that word, and what is looked through or kept back here would go there as it is.
fn is_disguised(segment: &str) -> bool {
    OURS.iter().chain(DECIDING).any(|word| *word != segment && word.eq_ignore_ascii_case(segment))
}

/// What stands behind `/v1/`, segment by segment.
fn segments(path: &str) -> Option<Vec<&str>> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~' | b':' | b'@' | b'+' | b'=');
    let is_good = |s: &&str| !matches!(*s, "" | "." | "..") && s.bytes().all(plain);
    let all: Vec<&str> = path.strip_prefix("/v1/")?.split('/').collect();
    (all.len() <= SEGMENTS_MAX && all.iter().all(is_good)).then_some(all)
}

/// The door of a path that is no door of ours; `None` if there is none.
pub(crate) fn door(path: &str) -> Option<&'static Door> {
    match segments(path)?.as_slice() {
        [first, ..] if is_disguised(first) => None,
        ["messages", second, ..] if is_disguised(second) => None,
        [first, ..] if OURS.contains(first) => None,
        ["messages"] | ["messages", "count_tokens"] => None,
        ["messages", "batches", ..] => Some(&BATCHES),
        ["files", ..] => Some(&FILES),
        ["skills", ..] => Some(&SKILLS),
        _ => Some(&OTHER),
    }
}

/// The largest body that a door takes.
pub(super) fn limit(door: &Door, limits: &Limits) -> u64 {
    match door.name {
        "files" => limits.file_bytes,
        "batches" => limits.batch_bytes,
        _ => limits.body_bytes,
    }
}

/// Whether a request may make models work, which costs: a new batch, and what is sent to a path that is
/// not known.
pub(crate) fn makes_models_work(door: &Door, head: &RequestHead) -> bool {
    let sends = matches!(head.method(), "POST" | "PUT" | "PATCH");
    let is_batch = || segments(head.path()).is_some_and(|all| all == ["messages", "batches"]);
    sends && (door.name == OTHER.name || door.name == BATCHES.name && is_batch())
}

/// Whether its answers hold addresses of the upstream.
pub(super) fn has_addresses(door: &Door) -> bool {
    door.name == BATCHES.name
}

/// Whether it is about an organisation and its keys: nothing to be done with a key of ours.
pub(super) fn is_admins(path: &str) -> bool {
    let of =
        |collection| path.strip_prefix(collection).is_some_and(|rest: &str| rest.is_empty() || rest.starts_with('/'));
    of("/v1/organizations") || of("/v1/oauth")
}

/// The id of the thing that a path is about. Words such as `pptx`, which name the same thing
/// everywhere, are none.
pub(super) fn id(path: &str) -> Option<&str> {
    let segments = segments(path)?;
    let at = if segments.starts_with(&["messages", "batches"]) { 2 } else { 1 };
    segments.get(at).copied().filter(|id| is_id(id))
}

/// Whether a word is an id: a kind, an underscore, and the rest.
pub(super) fn is_id(word: &str) -> bool {
    word.len() <= 128 && word.contains('_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_passed_on_is_named_by_its_path() {
        let check = |path| door(path).map(|door| door.name);
        for (path, want) in [
            ("/v1/files", Some("files")),
            ("/v1/files/file_1/content", Some("files")),
            ("/v1/messages/batches/msgbatch_1/results", Some("batches")),
            ("/v1/skills/skill_1/versions/1759178010641129", Some("skills")),
            ("/v1/agents", Some("other")),
            ("/v1/complete", Some("other")),
            ("/v1/messages", None),
            ("/v1/models/a/b", None),
            ("/v1/conversations/a/b", None),
            ("/v1/streams/", None),
            ("/v1/", None),
            ("/v2/files", None),
            ("/v1/files/", None),
            ("/v1/files/../organizations", None),
            ("/v1/files/..%2Forganizations", None),
            ("/v1/files\\x", None),
            ("//v1/files", None),
            ("/V1/files", None),
            ("/v1/Messages", None),
            ("/v1/MESSAGES/batches", None),
            ("/v1/messages/Count_Tokens", None),
            ("/v1/Organizations/me", None),
            ("/v1/Streams", None),
            ("/v1/files/Files", Some("files")),
        ] {
            assert_eq!(check(path), want, "{path}");
        }
        assert_eq!(door(&format!("/v1{}", "/a".repeat(13))), None);
    }

    #[test]
    fn the_id_of_a_path_stands_behind_its_collection() {
        assert_eq!(id("/v1/files/file_1/content"), Some("file_1"));
        assert_eq!(id("/v1/messages/batches/msgbatch_1"), Some("msgbatch_1"));
        assert_eq!(id("/v1/skills/pptx"), None, "there is one everywhere");
        assert_eq!((id("/v1/files"), id("/v1/messages/batches")), (None, None));
        assert!(is_admins("/v1/organizations/me") && is_admins("/v1/oauth/token") && !is_admins("/v1/organizationsx"));
    }
}
