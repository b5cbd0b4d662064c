//! Ids of things that live at one organisation: files, containers, skills of its own, threads.
//!
//! Such an id means nothing anywhere else, so a request that names one has to go where it lives.
//! Requests are looked into for the ids they name; answers for ids they make known, and only where
//! the request used such things. A `file_id` counts where the API reads one: as the source of a
//! block, or in a block that uploads into a container; in answers, where code put a file out. The
//! same word in a tool's arguments is an agent's business and names nothing. Where the word does not
//! occur at all, which is nearly always, nothing is taken apart; a word inside a text is escaped
//! there and is not found.

use crate::raw::{self, RawObject};
use crate::request::Parts;
use memchr::memmem;
use std::sync::LazyLock;

/// The most ids of one request, or of one event, that are looked at: enough to tell where it lives.
pub const IDS_MAX: usize = 64;
/// The longest id, bytes; the API's have some thirty.
const ID_BYTES_MAX: usize = 128;
/// Blocks inside blocks that are looked into: a tool's result holds a document, which holds blocks.
const BLOCKS_DEEP: usize = 3;
/// An event's message, its blocks, a tool's result in one, its list, an entry of that.
const ANSWER_DEEP: usize = 5;

static FILE: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(b"\"file_id\""));
static CONTAINER: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(b"\"container\""));

/// The id that `value` is, if it is one: a plain JSON string of sensible length.
fn id(value: &str) -> Option<&str> {
    let id = value.strip_prefix('"')?.strip_suffix('"')?;
    let plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\');
    (!id.is_empty() && id.len() <= ID_BYTES_MAX && id.bytes().all(plain)).then_some(id)
}

/// The id at `key` of `object`.
fn id_at<'a>(object: &RawObject<'a>, key: &str) -> Option<&'a str> {
    object.get(key).and_then(|v| id(v.get()))
}

fn names_files(text: &str) -> bool {
    FILE.find(text.as_bytes()).is_some()
}

/// The files that a list of blocks refers to; blocks inside blocks (a tool's result, a document made
/// of others) down to `depth`.
fn files<'a>(blocks: &'a str, depth: usize, see: &mut impl FnMut(&'a str)) {
    raw::each_element(blocks, |block| {
        let Some(block) = Some(block).filter(|b| names_files(b)).and_then(|b| RawObject::read(b.as_bytes()).ok())
        else {
            return;
        };
        if block.is("type", "container_upload") {
            id_at(&block, "file_id").into_iter().for_each(&mut *see);
        }
        let source = block.get("source").and_then(|s| RawObject::read(s.get().as_bytes()).ok());
        let from_file = source.as_ref().filter(|s| s.is("type", "file"));
        from_file.and_then(|s| id_at(s, "file_id")).into_iter().for_each(&mut *see);
        if depth > 0 {
            let inner = [block.get("content"), source.as_ref().and_then(|s| s.get("content"))];
            inner.into_iter().flatten().for_each(|list| files(list.get(), depth - 1, see));
        }
    });
}

/// What an answer's object makes known: the container it ran in, and files that code put out.
fn outputs<'a>(object: &'a str, depth: usize, see: &mut impl FnMut(&'a str)) {
    let Ok(object) = RawObject::read(object.as_bytes()) else { return };
    if object.get("type").is_some_and(|t| t.get().ends_with("_output\"")) {
        id_at(&object, "file_id").into_iter().for_each(&mut *see);
    }
    let container = object.get("container").and_then(|c| RawObject::read(c.get().as_bytes()).ok());
    container.and_then(|c| id_at(&c, "id")).into_iter().for_each(&mut *see);
    if depth == 0 {
        return;
    }
    for inner in ["message", "delta", "content_block", "content"].iter().filter_map(|key| object.get(key)) {
        if inner.get().starts_with('[') {
            raw::each_element(inner.get(), |one| outputs(one, depth - 1, see));
        } else {
            outputs(inner.get(), depth - 1, see);
        }
    }
}

/// Calls `see` with each id that a request names; `parts` says where its parts stand in `body`.
pub fn named<'a>(body: &'a [u8], parts: &Parts, mut see: impl FnMut(&'a str)) {
    let text = |part: &Option<std::ops::Range<usize>>| part.clone().and_then(|at| std::str::from_utf8(&body[at]).ok());
    let mut left = IDS_MAX;
    let mut see = |id| {
        if left > 0 {
            left -= 1;
            see(id);
        }
    };
    if let Some(messages) = text(&parts.messages).filter(|m| names_files(m)) {
        raw::each_element(messages, |message| {
            let message = Some(message).filter(|m| names_files(m)).and_then(|m| RawObject::read(m.as_bytes()).ok());
            let content = message.as_ref().and_then(|m| m.get("content"));
            content.into_iter().for_each(|c| files(c.get(), BLOCKS_DEEP, &mut see));
        });
    }
    if let Some(container) = text(&parts.container) {
        let object = RawObject::read(container.as_bytes()).ok();
        let named = object.as_ref().and_then(|o| o.get("id")).map_or(container, |v| v.get());
        id(named).into_iter().for_each(&mut see);
        let skills = object.as_ref().and_then(|o| o.get("skills")).map_or("", |v| v.get());
        raw::each_element(skills, |skill| {
            let Ok(skill) = RawObject::read(skill.as_bytes()) else { return };
            if skill.is("type", "custom") {
                id_at(&skill, "skill_id").into_iter().for_each(&mut see);
            }
        });
    }
    if let Some(thread) = text(&parts.thread).and_then(|t| RawObject::read(t.as_bytes()).ok()) {
        id_at(&thread, "previous_message_id").into_iter().for_each(&mut see);
    }
}

/// Calls `see` with each id that an answer, or an event of one, makes known: of files and containers.
pub fn told<'a>(text: &'a [u8], mut see: impl FnMut(&'a str)) {
    if FILE.find(text).is_none() && CONTAINER.find(text).is_none() {
        return;
    }
    // An event's one object stands between its first and last brace.
    let (Some(begin), Some(end)) = (memchr::memchr(b'{', text), memchr::memrchr(b'}', text)) else { return };
    let Some(object) = text.get(begin..=end).and_then(|o| std::str::from_utf8(o).ok()) else { return };
    let mut left = IDS_MAX;
    outputs(object, ANSWER_DEEP, &mut |id| {
        if left > 0 {
            left -= 1;
            see(id);
        }
    });
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
            r#"{"model":"m","messages":[{"content":[{"type":"container_upload","file_id":null},{"type":"container_upload","file_id":7},{"type":"container_upload","file_id":"with space"},{"type":"container_upload","file_id":""},"file_id"]}]}"#,
            r#"{"model":"m","metadata":{"file_id":"file_1"},"file_id":"file_2","system":[{"type":"text","text":"a","file_id":"file_3"}]}"#,
        ] {
            assert_eq!(check(body), Vec::<&str>::new(), "{body}");
        }
    }

    #[test]
    fn a_tools_arguments_name_nothing_and_its_results_do() {
        let call = r#"{"role":"assistant","content":[{"type":"tool_use","id":"t","name":"read","input":{"file_id":"file_1","source":{"type":"file","file_id":"file_2"},"content":[{"type":"container_upload","file_id":"file_3"}]}}]}"#;
        let result = r#"{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":[{"type":"document","source":{"type":"file","file_id":"file_4"}},{"type":"document","source":{"type":"content","content":[{"type":"image","source":{"type":"file","file_id":"file_5"}}]}}]}]}"#;
        let tool = r#"[{"name":"read","input_schema":{"properties":{"file_id":{"type":"string"}}}}]"#;
        let body = format!(r#"{{"model":"m","tools":{tool},"messages":[{call},{result}]}}"#);
        assert_eq!(check(&body), ["file_4", "file_5"]);
    }

    #[test]
    fn only_so_many_ids_of_a_request_are_looked_at() {
        let block = |n: usize| format!(r#"{{"type":"container_upload","file_id":"file_{n}"}}"#);
        let blocks: Vec<_> = (0..IDS_MAX + 10).map(block).collect();
        let body = format!(r#"{{"model":"m","container":"cnt","messages":[{{"content":[{}]}}]}}"#, blocks.join(","));
        assert_eq!(check(&body).len(), IDS_MAX);
    }

    fn told_by(text: &str) -> Vec<&str> {
        let mut ids = Vec::new();
        told(text.as_bytes(), |id| ids.push(id));
        ids
    }

    #[test]
    fn an_answers_ids_are_found() {
        let event = concat!(
            "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\",",
            "\"container\":{\"expires_at\":\"2026-11-22T20:34:00Z\",\"id\":\"cnt_9\"}},\"usage\":{}}\n\n"
        );
        assert_eq!(told_by(event), ["cnt_9"]);
        let output = r#"{"type":"bash_code_execution_tool_result","tool_use_id":"s","content":{"type":"bash_code_execution_result","stdout":"","content":[{"type":"bash_code_execution_output","file_id":"file_9"}]}}"#;
        let event = format!(
            "event: content_block_start\ndata: {{\"type\":\"content_block_start\",\"index\":1,\"content_block\":{output}}}\n\n"
        );
        assert_eq!(told_by(&event), ["file_9"]);
        let message = format!(r#"{{"type":"message","content":[{output}],"container":{{"id":"cnt_1"}}}}"#);
        assert_eq!(told_by(&message), ["cnt_1", "file_9"]);
        let event = format!("event: message_start\ndata: {{\"type\":\"message_start\",\"message\":{message}}}\n\n");
        assert_eq!(told_by(&event), ["cnt_1", "file_9"]);
    }

    #[test]
    fn what_a_model_writes_into_a_tools_arguments_makes_nothing_known() {
        let input = r#"{"file_id":"file_1","type":"x_output","container":{"id":"cnt_1"},"content":[{"type":"x_output","file_id":"file_2"}]}"#;
        let block = format!(r#"{{"type":"tool_use","id":"t","name":"n","input":{input}}}"#);
        assert_eq!(told_by(&format!(r#"{{"type":"message","content":[{block}]}}"#)), Vec::<&str>::new());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(text in "(\"container\"|\"file_id\"|\"content\"|\"id\"|:|\\{|\\}|\\[|\\]|,|\"a\"| |x){0,16}") {
            told(text.as_bytes(), |_| {});
        }
    }
}
