//! Addresses and ids in an answer that is passed on.
//!
//! A batch that has ended says where its results are, with the upstream's own host: SDKs go there,
//! with the credential they have, which is ours. So the address becomes one of this gateway. Nothing
//! else is touched: the key is found as a key, in the bytes, and its value replaced.

use super::doors::is_id;
use crate::house::House;
use memchr::memmem;
use std::borrow::Cow;
use tidegate_wire::http::RequestHead;
use tidegate_wire::raw::{self, RawObject};

const KEY: &[u8] = b"\"results_url\"";
/// What addresses that are rewritten have in common.
const PATH: &str = "/v1/messages/batches/";
/// Ids of one page that are looked at: its largest limit.
const IDS_MAX: usize = 1_000;

/// Our own address, as the client that sent `head` knows it: what the configuration says, else the
/// host it asked for. Behind something that ends TLS in front of us, that something has to say so.
pub(super) fn base(house: &House, head: &RequestHead) -> Option<String> {
    let settings = &house.settings.pass_through;
    if let Some(url) = &settings.public_url {
        return Some(url.trim_end_matches('/').to_owned());
    }
    let host = head.headers.text("host")?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']');
    let is_good = !host.is_empty() && host.bytes().all(plain);
    // One that several have forwarded: the first is the client's.
    let proto = head.headers.text("x-forwarded-proto").and_then(|list| list.split(',').next());
    let forwarded = proto.is_some_and(|proto| proto.trim().eq_ignore_ascii_case("https"));
    let scheme = if settings.speaks_tls || forwarded { "https" } else { "http" };
    is_good.then(|| format!("{scheme}://{host}"))
}

/// `body` with every `results_url` at `base`.
pub(super) fn rewritten(body: &[u8], base: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + 64);
    let mut from = 0;
    for at in memmem::find_iter(body, KEY) {
        let Some((start, end)) = value(body, at) else { continue };
        // Some escape their slashes.
        let Ok(url) = serde_json::from_slice::<String>(&body[start - 1..=end]) else { continue };
        // From its path on it stays as it is.
        let stays = |c: char| !c.is_control() && !matches!(c, '"' | '\\');
        let path = url.find(PATH).filter(|path| url[*path..].chars().all(stays));
        if let Some(path) = path {
            out.extend_from_slice(&body[from..start]);
            out.extend_from_slice(base.as_bytes());
            out.extend_from_slice(&url.as_bytes()[path..]);
            from = end;
        }
    }
    out.extend_from_slice(&body[from..]);
    out
}

/// Where the text of the string begins and ends that belongs to the key at `at`. In a text, the
/// quotation marks around what looks like a key would be escaped.
fn value(body: &[u8], at: usize) -> Option<(usize, usize)> {
    if at > 0 && body[at - 1] == b'\\' {
        return None;
    }
    let space = |from: usize| {
        let rest = body.get(from..).unwrap_or_default();
        from + rest.iter().take_while(|b| b.is_ascii_whitespace()).count()
    };
    let colon = space(at + KEY.len());
    let quote = space(colon + 1);
    if body.get(colon) != Some(&b':') || body.get(quote) != Some(&b'"') {
        return None;
    }
    let mut end = quote + 1;
    while *body.get(end)? != b'"' {
        end += 1 + usize::from(body[end] == b'\\');
    }
    Some((quote + 1, end))
}

/// The ids of what an answer is about: one thing, or a page of them.
pub(super) fn ids(body: &[u8]) -> Vec<Cow<'_, str>> {
    let mut found = Vec::new();
    let Ok(object) = RawObject::read(body) else { return found };
    let id_of = |object: &RawObject<'_>| object.parse::<String>("id").filter(|id| is_id(id)).map(Cow::Owned);
    found.extend(id_of(&object));
    if let Some(page) = object.get("data") {
        raw::each_element(page.get(), |one| {
            if found.len() < IDS_MAX {
                found.extend(RawObject::read(one.as_bytes()).ok().and_then(|one| id_of(&one)));
            }
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(body: &str, want: &str) {
        assert_eq!(std::str::from_utf8(&rewritten(body.as_bytes(), "http://gw:1/x")).unwrap(), want);
    }

    #[test]
    fn the_address_of_results_becomes_ours_and_nothing_else_changes() {
        check(
            r#"{"id":"msgbatch_1","results_url":"https://api.anthropic.com/v1/messages/batches/msgbatch_1/results","x":1}"#,
            r#"{"id":"msgbatch_1","results_url":"http://gw:1/x/v1/messages/batches/msgbatch_1/results","x":1}"#,
        );
        check(
            r#"{"data":[{"results_url" : "https://h/p/v1/messages/batches/a/results?beta=true"},{"results_url":null}]}"#,
            r#"{"data":[{"results_url" : "http://gw:1/x/v1/messages/batches/a/results?beta=true"},{"results_url":null}]}"#,
        );
        check(
            r#"{"results_url":"https:\/\/h\/v1\/messages\/batches\/a\/results","x":"\/"}"#,
            r#"{"results_url":"http://gw:1/x/v1/messages/batches/a/results","x":"\/"}"#,
        );
        for same in [
            r#"{"results_url":null}"#,
            r#"{"results_url":"https://h/v1/messages/batches/a\"b"}"#,
            r#"{"results_url":"https://h/v1/messages/batches/a\nb"}"#,
            r#"{"results_url":"https://h/v1/messages/batches/a\u0"}"#,
            r#"{"results_url":"https://h/v1/messages/batches/a\"#,
            r#"{"results_url":"https://elsewhere/file"}"#,
            r#"{"text":"say \"results_url\":\"https://h/v1/messages/batches/a/results\""}"#,
            r#"["results_url","https://h/v1/messages/batches/a/results"]"#,
            r#"{"results_url":"https://h/v1/messages/batches/a"#,
            r#"{"results_url""#,
            r#"{"results_url":"#,
            "",
        ] {
            check(same, same);
        }
    }

    #[test]
    fn an_answer_names_what_it_is_about() {
        assert_eq!(ids(br#"{"id":"file_1","type":"file"}"#), ["file_1"]);
        assert_eq!(
            ids(br#"{"data":[{"id":"file_1"},{"id":"pptx"},{"id":"skill_2"}],"next_page":null}"#),
            ["file_1", "skill_2"]
        );
        assert!(ids(b"[1]").is_empty() && ids(b"{}").is_empty() && ids(b"{").is_empty());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_rewritten_without_a_panic(text in "[\"\\\\ :a,{}]{0,20}(\"results_url\")?[\"\\\\ :a,{}]{0,20}") {
            let _ = rewritten(text.as_bytes(), "b");
        }
    }
}
