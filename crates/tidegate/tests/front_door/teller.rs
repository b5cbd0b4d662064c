//! An upstream that tells words at a pace, and knows what it told and who did not listen to the end.

use crate::process::{Tidegate, finished};
use crate::upstream::{BEGIN, END, FINISH, Seen, Upstream, chunk, stream_head};
use serde_json::Value;
use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// The upstream.
pub(crate) struct Teller {
    pub(crate) upstream: Upstream,
    /// Answers that nobody heard the end of.
    pub(crate) left: Arc<AtomicUsize>,
}

/// A delta of text in block 0.
pub(crate) fn delta(text: &str) -> String {
    let text = serde_json::to_string(text).unwrap();
    format!(
        "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{{\"type\":\"text_delta\",\"text\":{text}}}}}\n\n"
    )
}

/// Word number `n` of any answer.
fn word(n: usize) -> String {
    format!(" word{n}")
}

/// What is told in `words` words.
pub(crate) fn told(words: usize) -> String {
    "Hi".to_owned() + &(0..words).map(word).collect::<String>()
}

impl Teller {
    /// Tells `words` words, `pace` apart.
    pub(crate) fn of(words: usize, pace: Duration) -> Self {
        Teller::by(move |_, _| (words, pace))
    }

    /// How many words and how fast is decided by the request and its number.
    pub(crate) fn by(script: impl Fn(usize, &Value) -> (usize, Duration) + Send + Sync + 'static) -> Self {
        let left = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&left);
        let upstream = Upstream::playing(move |nth, seen: &Seen, socket| {
            let asked: Value = serde_json::from_slice(&seen.body).unwrap_or_default();
            let (words, pace) = script(nth, &asked);
            if tell(socket, words, pace).is_err() {
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        Teller { upstream, left }
    }

    /// A gateway in front of it.
    pub(crate) fn gateway(&self, config: &str) -> Tidegate {
        Tidegate::before(self.upstream.at, "k", &format!("[retry]\nattempts_max = 1\n{config}"))
    }

    pub(crate) fn left(&self) -> usize {
        self.left.load(Ordering::SeqCst)
    }
}

fn tell(socket: &mut TcpStream, words: usize, pace: Duration) -> std::io::Result<()> {
    socket.write_all((stream_head("request-id: req_theirs\r\n") + &chunk(BEGIN)).as_bytes())?;
    for n in 0..words {
        if !pace.is_zero() {
            std::thread::sleep(pace);
        }
        socket.write_all(chunk(&delta(&word(n))).as_bytes())?;
    }
    socket.write_all((chunk(FINISH) + END).as_bytes())
}

/// Two tenants: the lines of their configuration, and their keys.
pub(crate) fn two_tenants() -> (String, [String; 2]) {
    let mut config = String::new();
    let keys = ["one", "two"].map(|tenant| {
        let (_, out, _) = finished(&["key", "new", "--tenant", tenant]);
        config += &out[out.find("[[client_key]]").unwrap()..];
        config += "\n";
        out.lines().map(str::trim).find(|line| line.starts_with("tg_")).unwrap().to_owned()
    });
    (config, keys)
}
