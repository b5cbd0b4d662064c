//! The conversations' own doors: what is stored is listed, read, changed, carried over and erased.

mod carrying;
mod changing;
mod erasing;
mod reading;
mod refusing;
mod storage;

use crate::process::Tidegate;
use crate::wire::{Answer, QUICK, bare, get, post, post_to};
use serde_json::{Value, json};
use tidegate_gateway::KeyHash;

/// Where conversations are.
const ALL: &str = "/v1/conversations";
/// The lines of an import.
const LINES: (&str, &str) = ("content-type", "application/x-ndjson");

/// The first line of an export.
const HEADER: &[u8] = b"{\"tidegate\":\"conversations\",\"version\":1}\n";

/// Every byte that is not plain as an escape.
fn encoded(id: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    id.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// The path of a conversation.
fn path(id: &str) -> String {
    format!("{ALL}/{}", encoded(id))
}

/// A turn that a model answers.
fn say(tidegate: &Tidegate, id: &str, text: &str, user: Option<&str>) -> Answer {
    let mut body =
        json!({"model": "claude-sonnet-4-5", "max_tokens": 100, "messages": [{"role": "user", "content": text}]});
    if let Some(user) = user {
        body["metadata"] = json!({"user_id": user});
    }
    let answer = tidegate.ask(post(&[QUICK, ("tidegate-conversation", id)], body.to_string()));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer
}

/// A turn that is only written.
fn write(tidegate: &Tidegate, id: &str, text: &str) -> Answer {
    let body = json!({"messages": [{"role": "user", "content": text}]});
    tidegate.ask(post_to(&format!("{}/turns", path(id)), &[], body.to_string()))
}

fn read(tidegate: &Tidegate, path: &str) -> Value {
    let answer = tidegate.ask(get(path, &[]));
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/json"), "{path}");
    answer.json()
}

fn delete(tidegate: &Tidegate, path: &str) -> Answer {
    tidegate.ask(bare("DELETE", path, &[]))
}

fn export(tidegate: &Tidegate, path: &str, lines: &[(&str, &str)]) -> Vec<u8> {
    let answer = tidegate.ask(get(path, lines));
    assert!(answer.status == 200 && answer.whole, "{path}: {}", answer.head);
    assert_eq!(answer.header("content-type"), Some("application/x-ndjson"), "{path}");
    answer.body
}

/// A request with JSON Lines, whatever the usual one says of its kind.
fn import_request(lines: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let lines: String = lines.iter().chain([&LINES]).map(|(n, v)| format!("{n}: {v}\r\n")).collect();
    let head = format!("POST {ALL} HTTP/1.1\r\nhost: tidegate\r\n{lines}content-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn import(tidegate: &Tidegate, lines: &[(&str, &str)], body: &[u8]) -> Answer {
    tidegate.ask(import_request(lines, body))
}

/// The ids of a page.
fn ids(page: &Value) -> Vec<String> {
    page["data"].as_array().unwrap().iter().map(|c| c["id"].as_str().unwrap().to_owned()).collect()
}

#[track_caller]
fn refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status, answer.code().as_str()), (status, code), "{}{}", answer.head, answer.text());
}

/// Two tenants with a key each.
fn two_tenants() -> Tidegate {
    let table = |tenant: &str| {
        let hash = KeyHash::of(format!("tg_{tenant}").as_bytes());
        format!("[[client_key]]\ntenant = \"{tenant}\"\nhash = \"{hash}\"\n")
    };
    Tidegate::simulated_with(&(table("a") + &table("b")), &[])
}
const KEY_A: (&str, &str) = ("x-api-key", "tg_a");
const KEY_B: (&str, &str) = ("x-api-key", "tg_b");
