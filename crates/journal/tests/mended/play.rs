//! A mender on its stage: events go in by hand, what the client sees is put together and checked.

use serde_json::{Value, json};
use tidegate_journal::recover::{Action, Mender, Rules, Unmendable};
use tidegate_wire::assemble::Assembler;
use tidegate_wire::event::Tap;

pub(crate) struct Play {
    pub(crate) mender: Mender,
    /// What the client sees.
    pub(crate) seen: Vec<Vec<u8>>,
}

pub(crate) fn event(data: &Value) -> Vec<u8> {
    format!("event: {}\ndata: {data}\n\n", data["type"].as_str().unwrap()).into_bytes()
}

pub(crate) fn start(input: u64) -> Vec<u8> {
    event(&json!({"type": "message_start", "message": {"id": format!("msg_{input}"), "content": [],
        "usage": {"input_tokens": input, "output_tokens": 1}}}))
}

pub(crate) fn begin(index: u32, block: Value) -> Vec<u8> {
    event(&json!({"type": "content_block_start", "index": index, "content_block": block}))
}

pub(crate) fn text_block(index: u32) -> Vec<u8> {
    begin(index, json!({"type": "text", "text": ""}))
}

pub(crate) fn thinking_block(index: u32) -> Vec<u8> {
    begin(index, json!({"type": "thinking", "thinking": "", "signature": ""}))
}

pub(crate) fn call(index: u32, id: &str) -> Vec<u8> {
    begin(index, json!({"type": "tool_use", "id": id, "name": "f", "input": {}}))
}

fn delta(index: u32, delta: Value) -> Vec<u8> {
    event(&json!({"type": "content_block_delta", "index": index, "delta": delta}))
}

pub(crate) fn text(index: u32, text: &str) -> Vec<u8> {
    delta(index, json!({"type": "text_delta", "text": text}))
}

pub(crate) fn thinking(index: u32, text: &str) -> Vec<u8> {
    delta(index, json!({"type": "thinking_delta", "thinking": text}))
}

pub(crate) fn signature(index: u32, text: &str) -> Vec<u8> {
    delta(index, json!({"type": "signature_delta", "signature": text}))
}

pub(crate) fn input(index: u32, json: &str) -> Vec<u8> {
    delta(index, json!({"type": "input_json_delta", "partial_json": json}))
}

pub(crate) fn stop(index: u32) -> Vec<u8> {
    event(&json!({"type": "content_block_stop", "index": index}))
}

pub(crate) fn totals(output: u64) -> Vec<u8> {
    event(&json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": output}}))
}

pub(crate) fn end() -> Vec<u8> {
    event(&json!({"type": "message_stop"}))
}

impl Play {
    pub(crate) fn new(rules: Rules) -> Self {
        Play { mender: Mender::new(rules), seen: Vec::new() }
    }

    /// One reply's events, as its own tap sees them.
    pub(crate) fn feed(&mut self, events: &[Vec<u8>]) -> Result<(), Unmendable> {
        let mut tap = Tap::new();
        for event in events {
            let kind = tap.see(event).unwrap();
            let seen = &mut self.seen;
            self.mender.feed(kind, event, &mut |_, event| seen.push(event.to_vec()))?;
        }
        Ok(())
    }

    pub(crate) fn cut(&mut self) -> Action {
        let seen = &mut self.seen;
        self.mender.cut(&mut |_, event| seen.push(event.to_vec()))
    }

    /// The message the client has, whole: one start, blocks numbered and closed in order, one end.
    pub(crate) fn message(&self) -> Value {
        let mut tap = Tap::new();
        let mut assembler = Assembler::new();
        let (mut open, mut next) = (None, 0);
        for event in &self.seen {
            assert!(!tap.stopped, "nothing after the end");
            tap.see(event).expect("in order");
            assembler.add(event).unwrap();
            let data: Value = serde_json::from_slice(&tidegate_wire::sse::parts(event).data.unwrap()).unwrap();
            match data["type"].as_str().unwrap() {
                "content_block_start" => {
                    assert_eq!((open, data["index"].as_u64()), (None, Some(next)));
                    (open, next) = (Some(next), next + 1);
                }
                "content_block_delta" => assert_eq!(data["index"].as_u64(), open),
                "content_block_stop" => {
                    assert_eq!(data["index"].as_u64(), open);
                    open = None;
                }
                "message_delta" => assert_eq!(open, None),
                _ => {}
            }
        }
        assert!(tap.stopped);
        serde_json::from_slice(&assembler.finish().unwrap()).unwrap()
    }
}
