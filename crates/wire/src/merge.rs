//! Fewer, larger deltas: what a slow reader has not read yet, made small.
//!
//! Between two block borders, deltas of one kind say no more than their concatenation. Here a
//! backlog of whole events is rewritten so that each run of plain deltas becomes one; the texts
//! are joined as they stand between their quotes, so the concatenated bytes do not change. Pings
//! and comments in a backlog are dropped: they only say that the line is alive, and the backlog
//! will. Everything else stays as it is, in its order.

use crate::event::{Kind, PlainDelta, plain_delta};
use crate::sse::{self, Splitter};

/// A merged delta does not grow past this, so that a reader that comes back gets text in pieces.
const MERGED_BYTES_MAX: usize = 64 * 1024;

/// Rewrites `backlog`, which holds whole events only.
pub fn merge(backlog: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(backlog.len() / 4);
    let mut run: Option<(Vec<u8>, Vec<u8>)> = None;
    let mut splitter = Splitter::new();
    let end_run = |run: &mut Option<(Vec<u8>, Vec<u8>)>, out: &mut Vec<u8>| {
        if let Some((head, text)) = run.take() {
            out.extend_from_slice(&head);
            out.extend_from_slice(&text);
            out.extend_from_slice(b"\"}}\n\n");
        }
    };
    // The backlog was fed event by event below the limit before; it cannot be too large here.
    let _ = splitter.feed(backlog, |event| match plain_delta(event) {
        Some(delta) => match &mut run {
            Some((head, text)) if *head == opening(&delta) && text.len() < MERGED_BYTES_MAX => {
                text.extend_from_slice(delta.text);
            }
            _ => {
                end_run(&mut run, &mut out);
                run = Some((opening(&delta), delta.text.to_vec()));
            }
        },
        None => {
            let parts = sse::parts(event);
            if parts.data.is_some() && Kind::of_name(parts.name) != Kind::Ping {
                end_run(&mut run, &mut out);
                out.extend_from_slice(event);
            }
        }
    });
    end_run(&mut run, &mut out);
    out
}

/// The event up to the opening quote of its text.
fn opening(delta: &PlainDelta<'_>) -> Vec<u8> {
    let head = b"event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":";
    [head, delta.index, delta.opening].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delta(index: u32, kind: &str, field: &str, text: &str) -> String {
        format!(
            "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":{index},\"delta\":{{\"type\":\"{kind}\",\"{field}\":\"{text}\"}}}}\n\n"
        )
    }

    fn text(index: u32, text: &str) -> String {
        delta(index, "text_delta", "text", text)
    }

    const STOP: &str = "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n";
    const PING: &str = "event: ping\ndata: {\"type\":\"ping\"}\n\n";

    #[test]
    fn runs_become_one_and_borders_stay() {
        let backlog = [
            &text(0, "a\\n"),
            PING,
            &text(0, "é"),
            ": c\n\n",
            STOP,
            &text(1, "x"),
            &delta(1, "thinking_delta", "thinking", "t"),
            &text(1, "y"),
        ]
        .concat();
        let want =
            [&text(0, "a\\né"), STOP, &text(1, "x"), &delta(1, "thinking_delta", "thinking", "t"), &text(1, "y")]
                .concat();
        assert_eq!(String::from_utf8(merge(backlog.as_bytes())).unwrap(), want);
    }

    #[test]
    fn a_surrogate_pair_split_over_two_deltas_is_whole_again() {
        let merged = merge([text(0, "\\ud83d"), text(0, "\\ude00")].concat().as_bytes());
        let merged = String::from_utf8(merged).unwrap();
        assert!(merged.contains("\\ud83d\\ude00"));
    }

    #[test]
    fn a_delta_in_another_shape_is_left_alone() {
        let odd = text(0, "x").replace("\"index\":0", "\"index\": 0");
        assert_eq!(merge(odd.as_bytes()), odd.as_bytes());
    }

    proptest::proptest! {
        #[test]
        fn the_concatenated_text_never_changes(parts in proptest::collection::vec((0u32..2, "[a-z\u{e9}]{0,5}"), 0..60)) {
            let backlog: String = parts.iter().map(|(i, t)| text(*i, t)).collect();
            let merged = merge(backlog.as_bytes());
            for block in 0..2 {
                let mut got = Vec::new();
                Splitter::new().feed(&merged, |e| {
                    let d = plain_delta(e).expect("a plain delta");
                    if d.index == block.to_string().as_bytes() { got.extend_from_slice(d.text) }
                }).unwrap();
                let want: String = parts.iter().filter(|(i, _)| *i == block).map(|(_, t)| t.as_str()).collect();
                proptest::prop_assert_eq!(got, want.as_bytes());
            }
        }
    }
}
