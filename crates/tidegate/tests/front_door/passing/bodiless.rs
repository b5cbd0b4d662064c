//! Answers that have no body, over a connection that goes on: what stood behind their heads would be
//! taken for the next answer.

use crate::process::Tidegate;
use crate::upstream::{Upstream, plain};
use crate::wire::{Answer, Wire, bare, get};

/// Asks for the head only, and reads no more than that.
fn head_of(wire: &mut Wire, path: &str, lines: &[(&str, &str)]) -> Answer {
    wire.send(bare("HEAD", path, lines));
    wire.head().unwrap()
}

/// The connection is where it should be: what comes next is the answer to what is asked next.
#[track_caller]
fn goes_on(wire: &mut Wire) {
    wire.send(get("/", &[]));
    let answer = wire.answer();
    assert_eq!((answer.status, answer.text().as_str()), (200, "{\"service\":\"tidegate\"}\n"));
}

#[test]
fn a_refusal_of_head_brings_no_body() {
    let upstream = Upstream::saying("HTTP/1.1 404 Not Found\r\ncontent-length: 120\r\n\r\n");
    let tidegate = Tidegate::before(upstream.at, "sk-ant-key", "");
    // Tidegate's own, before it has looked for a body.
    let mut wire = tidegate.client();
    let refused = head_of(&mut wire, "/v1/files/file_1", &[("tidegate-priority", "soon")]);
    assert_eq!((refused.status, refused.header("content-type")), (400, Some("application/json")));
    wire.ends("its length is told and nothing of it sent");
    // The upstream's, and the connection goes on.
    let mut wire = tidegate.client();
    assert_eq!(head_of(&mut wire, "/v1/files/file_1", &[]).status, 404);
    goes_on(&mut wire);
    drop(wire);
    tidegate.comes_to_rest();
}

#[test]
fn what_has_no_content_and_what_did_not_change_come_without_a_body() {
    let upstream = Upstream::playing(|_, seen, socket| {
        let said = if seen.all("if-none-match").is_empty() {
            "HTTP/1.1 204 No Content\r\ncontent-type: application/json\r\n\r\n"
        } else {
            "HTTP/1.1 304 Not Modified\r\netag: \"a\"\r\ncontent-length: 9\r\n\r\n"
        };
        drop(std::io::Write::write_all(socket, said.as_bytes()));
    });
    let tidegate = Tidegate::before(upstream.at, "sk-ant-key", "");
    let mut wire = tidegate.client();
    wire.send(bare("DELETE", "/v1/agents/agent_1", &[]));
    let gone = wire.head().unwrap();
    assert_eq!((gone.status, gone.header("content-length")), (204, None), "{}", gone.head);
    assert_eq!(gone.header("transfer-encoding"), None, "{}", gone.head);
    goes_on(&mut wire);
    wire.send(get("/v1/files/file_1/content", &[("if-none-match", "\"a\"")]));
    let same = wire.head().unwrap();
    assert_eq!((same.status, same.header("etag")), (304, Some("\"a\"")), "{}", same.head);
    goes_on(&mut wire);
    assert_eq!(upstream.seen().len(), 2, "neither is asked for again");
}

#[test]
fn of_what_has_no_length_none_is_told() {
    let upstream =
        Upstream::saying("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n");
    let tidegate = Tidegate::before(upstream.at, "sk-ant-key", "");
    let mut wire = tidegate.client();
    let head = head_of(&mut wire, "/v1/files/file_1/content", &[]);
    assert_eq!((head.status, head.header("content-length")), (200, None), "{}", head.head);
    goes_on(&mut wire);
}

#[test]
fn what_is_read_whole_is_asked_for_whole() {
    let upstream = Upstream::saying(plain(200, "content-type: application/json\r\n", r#"{"data":[]}"#));
    let tidegate = Tidegate::before(upstream.at, "sk-ant-key", "");
    let answer = tidegate.ask(get("/v1/models", &[("if-none-match", "\"a\""), ("range", "bytes=0-1")]));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let seen = &upstream.seen()[0];
    assert!(seen.all("if-none-match").is_empty() && seen.all("range").is_empty(), "{}", seen.head);
}

#[test]
fn the_head_of_what_lives_elsewhere_is_found_there() {
    let [north, south] = [404, 200].map(|status| {
        Upstream::saying(format!("HTTP/1.1 {status} X\r\ncontent-type: text/plain\r\ncontent-length: 7\r\n\r\n"))
    });
    let table = |name: &str, upstream: &Upstream| {
        format!("[[organisation]]\nname = \"{name}\"\nurl = \"http://{}\"\nkeys = [{{ value = \"k\" }}]\n", upstream.at)
    };
    let tidegate = Tidegate::configured(&(table("north", &north) + &table("south", &south)));
    let mut wire = tidegate.client();
    let found = head_of(&mut wire, "/v1/files/file_1/content", &[]);
    assert_eq!((found.status, found.header("content-length")), (200, Some("7")), "{}", found.head);
    goes_on(&mut wire);
}

#[test]
fn a_range_that_is_none_is_told_in_the_apis_shape() {
    let upstream = Upstream::saying(plain(
        416,
        "content-type: application/xml\r\ncontent-range: bytes */7\r\n",
        "<Error>InvalidRange</Error>",
    ));
    let tidegate = Tidegate::before(upstream.at, "sk-ant-key", "");
    let answer = tidegate.ask(get("/v1/files/file_1/content", &[("range", "bytes=9-")]));
    assert_eq!((answer.status, answer.code().as_str()), (416, "upstream_refused"));
    assert!(!answer.text().contains("<Error>"), "{}", answer.text());
    assert_eq!(upstream.seen()[0].all("range"), ["bytes=9-"]);
}
