//! Ids of things that live at one organisation: files, containers, skills of its own, threads.
//!
//! Such an id means nothing anywhere else, so a request that names one has to go where it lives.
//! Requests are looked into for the ids they name; answers for ids they make known, and only where
//! the request used such things. Both look for the API's own keys in the bytes; a key inside a text
//! is escaped there and is not found.

use crate::raw::{self, RawObject};
use crate::request::Parts;
use memchr::memmem;
use std::sync::LazyLock;

/// The most ids of one request, or of one event, that are looked at: enough to tell where it lives.
pub const IDS_MAX: usize = 64;
/// The longest id, bytes; the API's have some thirty.
const ID_BYTES_MAX: usize = 128;

static FILE: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(b"\"file_id\""));
static CONTAINER: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(b"\"container\""));

/// The id that `value` is, if it is one: a plain JSON string of sensible length.
fn id(value: &str) -> Option<&str> {
    let id = value.strip_prefix('"')?.strip_suffix('"')?;
    let plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\');
    (!id.is_empty() && id.len() <= ID_BYTES_MAX && id.bytes().all(plain)).then_some(id)
}

/// The string that stands at the beginning of `text`, after a colon.
fn value_after(text: &[u8]) -> Option<&str> {
    let value = text.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
    let end = memchr::memchr(b'"', value.strip_prefix(b"\"")?)? + 2;
    id(std::str::from_utf8(&value[..end]).ok()?)
}

fn files<'a>(text: &'a [u8], see: &mut impl FnMut(&'a str)) {
    let found = FILE.find_iter(text).take(IDS_MAX);
    found.filter_map(|at| value_after(&text[at + FILE.needle().len()..])).for_each(see);
}

/// Calls `see` with each id that a request names; `parts` says where its parts stand in `body`.
pub fn named<'a>(body: &'a [u8], parts: &Parts, mut see: impl FnMut(&'a str)) {
    let text = |part: &Option<std::ops::Range<usize>>| part.clone().and_then(|at| std::str::from_utf8(&body[at]).ok());
    files(body, &mut see);
    if let Some(container) = text(&parts.container) {
        let object = RawObject::read(container.as_bytes()).ok();
        let named = object.as_ref().and_then(|o| o.get("id")).map_or(container, |v| v.get());
        id(named).into_iter().for_each(&mut see);
        let skills = object.as_ref().and_then(|o| o.get("skills")).map_or("", |v| v.get());
        raw::each_element(skills, |skill| {
            let Ok(skill) = RawObject::read(skill.as_bytes()) else { return };
            if skill.get("type").is_some_and(|t| t.get() == "\"custom\"") {
                skill.get("skill_id").and_then(|v| id(v.get())).into_iter().for_each(&mut see);
            }
        });
    }
    if let Some(thread) = text(&parts.thread).and_then(|t| RawObject::read(t.as_bytes()).ok()) {
        thread.get("previous_message_id").and_then(|v| id(v.get())).into_iter().for_each(&mut see);
    }
}

/// Calls `see` with each id that a piece of an answer makes known: of files and containers.
pub fn told<'a>(text: &'a [u8], mut see: impl FnMut(&'a str)) {
    files(text, &mut see);
    for at in CONTAINER.find_iter(text).take(IDS_MAX) {
        let after = text[at + CONTAINER.needle().len()..].trim_ascii_start();
        let Some(object) = after.strip_prefix(b":").map(<[u8]>::trim_ascii_start) else { continue };
        // Its id comes first or after a date; what stands further off is not its own.
        let near = &object[..object.len().min(2 * ID_BYTES_MAX)];
        if let Some(at) = object.starts_with(b"{").then(|| memmem::find(near, b"\"id\"")).flatten()
            && let Some(id) = value_after(&object[at + 4..])
        {
            see(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::MessagesRequest;

    fn check(body: &str) -> Vec<&str> {
        let request = MessagesRequest::read(body.as_bytes()).unwrap();
        let mut ids = Vec::new();
        named(body.as_bytes(), &request.parts, |id| ids.push(id));
        ids
    }

    #[test]
    fn a_requests_ids_are_found() {
        let file = r#"{"model":"m","messages":[{"role":"user","content":[{"type":"document","source":{"type":"file","file_id": "file_1"}},{"type":"container_upload","file_id":"file_2"}]}]}"#;
        assert_eq!(check(file), ["file_1", "file_2"]);
        assert_eq!(check(r#"{"model":"m","container":"cnt_1"}"#), ["cnt_1"]);
        let skills = r#"{"model":"m","container":{"id":"cnt_2","skills":[{"type":"anthropic","skill_id":"xlsx"},{"type":"custom","skill_id":"skill_1"}]}}"#;
        assert_eq!(check(skills), ["cnt_2", "skill_1"]);
        assert_eq!(check(r#"{"model":"m","thread":{"type":"continue","previous_message_id":"msg_1"}}"#), ["msg_1"]);
    }

    #[test]
    fn what_is_no_id_is_not_taken_for_one() {
        for body in [
            r#"{"model":"m","container":null,"thread":{"type":"create"}}"#,
            r#"{"model":"m","messages":[{"content":"\"file_id\":\"file_1\""}]}"#,
            r#"{"model":"m","x":[{"file_id":null},{"file_id":7},{"file_id":"with space"},{"file_id":""},"file_id"]}"#,
        ] {
            assert_eq!(check(body), Vec::<&str>::new(), "{body}");
        }
    }

    #[test]
    fn an_answers_ids_are_found() {
        let event = br#"data: {"delta":{"container":{"expires_at":"2026-11-22T20:34:00Z","id":"cnt_9"}},"content":[{"file_id":"file_9"}],"container":null}"#;
        let mut ids = Vec::new();
        told(event, |id| ids.push(id));
        assert_eq!(ids, ["file_9", "cnt_9"]);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(text in "(\"container\"|\"file_id\"|\"id\"|:|\\{|\"a\"| |x){0,12}") {
            told(text.as_bytes(), |_| {});
        }
    }
}
