//! An answer as it comes, for a reader: its words, and that there is something besides words.

use super::client::{SILENCE_MAX, broken, silent};
use super::trouble::Trouble;
use serde_json::Value;
use std::future::poll_fn;
use tidegate_transport::Clock;
use tidegate_transport::http1::ClientConn;
use tidegate_wire::event::{Kind, Tap};
use tidegate_wire::http::ResponseHead;
use tidegate_wire::sse::{self, Splitter};

/// What an answer brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Words.
    Text(String),
    /// Thinking began.
    Thinking,
    /// A block of another kind began.
    Block(String),
}

/// An answer under way. Dropping it leaves, and the gateway stops the model.
pub(super) struct Stream {
    /// Its head.
    pub(super) head: ResponseHead,
    /// What it said of itself so far.
    pub(super) tap: Tap,
    conn: ClientConn,
    clock: Clock,
    splitter: Splitter,
    is_rotten: bool,
}

impl Stream {
    /// The body that follows `head` on `conn`.
    pub(super) fn new(head: ResponseHead, conn: ClientConn, clock: Clock) -> Self {
        Stream { head, tap: Tap::new(), conn, clock, splitter: Splitter::new(), is_rotten: false }
    }

    /// The next pieces, perhaps none; `None` once the answer is whole. Pieces that came before it
    /// broke are given first.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Piece>>, Trouble> {
        if let Some(error) = self.tap.error.take() {
            return Err(Trouble::in_stream(*error));
        }
        if self.is_rotten {
            return Err(Trouble::Broken("an event in it cannot be read".to_owned()));
        }
        // The end of the message is its end, whatever comes after.
        if self.tap.stopped {
            return Ok(None);
        }
        let Stream { conn, splitter, tap, .. } = self;
        let (mut pieces, mut is_rotten, mut is_too_large) = (Vec::new(), false, false);
        let mut see = |event: &[u8]| match tap.see(event) {
            Ok(Kind::BlockDelta | Kind::BlockStart) => pieces.extend(piece(event)),
            Ok(_) => {}
            Err(_) => is_rotten = true,
        };
        let mut sink = |bytes: &[u8]| is_too_large |= splitter.feed(bytes, &mut see).is_err();
        let read = poll_fn(|cx| conn.poll_body(cx, &mut sink));
        let read = self.clock.within(SILENCE_MAX, read).await.ok_or_else(silent)?;
        self.is_rotten = is_rotten || is_too_large;
        let says_how_it_ends = self.is_rotten || self.tap.stopped || self.tap.error.is_some();
        match read {
            Ok(true) if pieces.is_empty() && !says_how_it_ends => Err(Trouble::Broken("it ended too early".to_owned())),
            Err(e) if pieces.is_empty() && !says_how_it_ends => Err(broken(e)),
            _ => Ok(Some(pieces)),
        }
    }
}

/// What an event of a block's beginning or middle brings to a reader.
fn piece(event: &[u8]) -> Option<Piece> {
    let data: Value = serde_json::from_slice(&sse::parts(event).data?).ok()?;
    let text = |value: &Value| value["text"].as_str().filter(|t| !t.is_empty()).map(|t| Piece::Text(t.to_owned()));
    let block = &data["content_block"];
    match block["type"].as_str() {
        Some("text") => text(block),
        Some("thinking" | "redacted_thinking") => Some(Piece::Thinking),
        Some(kind) => Some(Piece::Block(match block["name"].as_str() {
            Some(name) => format!("{kind}: {name}"),
            None => kind.to_owned(),
        })),
        None => text(&data["delta"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const START: &str = r#"{"type":"message_start","message":{"id":"m","usage":{"input_tokens":5}}}"#;
    const STOP: &str = r#"{"type":"message_stop"}"#;

    fn event(data: &str) -> String {
        let name = data.split('"').nth(3).unwrap();
        format!("event: {name}\ndata: {data}\n\n")
    }

    fn delta(text: &str) -> String {
        event(&format!(r#"{{"type":"content_block_delta","index":0,"delta":{{"type":"text_delta","text":"{text}"}}}}"#))
    }

    fn begin(block: &str) -> String {
        event(&format!(r#"{{"type":"content_block_start","index":0,"content_block":{block}}}"#))
    }

    /// All pieces of a body that ends with its connection, and how it ended.
    async fn read(body: &str) -> (Vec<Piece>, Result<(), Trouble>) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let near = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let answer = format!("HTTP/1.1 200 OK\r\n\r\n{body}");
        // Whoever has heard enough closes: then the rest cannot be written.
        std::thread::spawn(move || listener.accept().unwrap().0.write_all(answer.as_bytes()).is_ok());
        let mut conn = ClientConn::new(Box::new(near));
        let head = conn.read_head(false, true).await.unwrap();
        let mut stream = Stream::new(head, conn, Clock::real());
        let mut pieces = Vec::new();
        loop {
            match stream.next().await {
                Ok(Some(more)) => pieces.extend(more),
                Ok(None) => return (pieces, Ok(())),
                Err(trouble) => return (pieces, Err(trouble)),
            }
        }
    }

    #[tokio::test]
    async fn words_come_and_of_everything_else_that_it_is_there() {
        let body = [
            event(START),
            begin(r#"{"type":"thinking","thinking":""}"#),
            event(r#"{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"hm"}}"#),
            begin(r#"{"type":"text","text":""}"#),
            delta("one \\n"),
            event(r#"{"type":"ping"}"#),
            delta("two"),
            begin(r#"{"type":"server_tool_use","name":"web_search"}"#),
            begin(r#"{"type":"redacted_thinking","data":"x"}"#),
            event(STOP),
            "not an event any more".to_owned(),
        ];
        let (pieces, end) = read(&body.concat()).await;
        let text = |text: &str| Piece::Text(text.to_owned());
        let block = Piece::Block("server_tool_use: web_search".to_owned());
        assert_eq!(pieces, [Piece::Thinking, text("one \n"), text("two"), block, Piece::Thinking]);
        assert_eq!(end, Ok(()));
    }

    #[tokio::test]
    async fn what_came_before_the_end_is_told_and_then_how_it_ended() {
        let words = vec![Piece::Text("half".to_owned())];
        let error = r#"{"type":"error","error":{"type":"api_error","message":"Gone."}}"#;
        for (rest, says) in [
            (String::new(), "ended too early"),
            (event(error), "api_error: Gone."),
            ("event: content_block_delta\ndata: {\n\n".to_owned(), "cannot be read"),
            (format!("data: {}", "x".repeat(sse::EVENT_BYTES_MAX + 1)), "cannot be read"),
        ] {
            let (pieces, end) = read(&[event(START), delta("half"), rest].concat()).await;
            assert_eq!(pieces, words, "{says}");
            assert!(end.unwrap_err().to_string().contains(says), "{says}");
        }
    }
}
