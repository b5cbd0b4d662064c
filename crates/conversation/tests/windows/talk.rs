//! Random conversations as a client would hold them: whatever the API takes, in every mixture.
//!
//! A talk is a list of steps; what a step adds ends where a request is sent. Everything comes from a
//! seed: parallel tools, loops of many rounds, thinking with genuine seals, images, documents of a
//! hundred pages, huge texts, Chinese, system messages, marks of the client's own.

use serde_json::json;
use tidegate_base::Prng;

/// What a client's library writes for a mark.
pub(crate) const MARK: &str = r#","cache_control":{"type":"ephemeral"}"#;

/// Base64 that stands in messages, and what it costs by the API's documentation.
pub(crate) struct Payload {
    /// The text.
    pub(crate) base64: String,
    /// Tokens.
    pub(crate) tokens: u64,
}

/// An image of 640 by 480 and a document of a hundred pages.
pub(crate) fn payloads() -> [Payload; 2] {
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
    png.extend([0, 0, 2, 128, 0, 0, 1, 224]);
    png.extend([7; 600]);
    let pdf = "<</Type /Page /Contents 7 0 R>>\n".repeat(100);
    [
        Payload { base64: base64(&png), tokens: (640 * 480_u64).div_ceil(750) },
        Payload { base64: base64(pdf.as_bytes()), tokens: 100 * 3_000 },
    ]
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let at = |n: usize| u32::from(chunk.get(n).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for n in 0..4 {
            let six = ALPHABET[(bits >> (18 - 6 * n) & 63) as usize] as char;
            out.push(if n <= chunk.len() { six } else { '=' });
        }
    }
    out
}

/// A conversation.
pub(crate) struct Talk {
    /// What each request adds, as JSON texts.
    pub(crate) steps: Vec<Vec<String>>,
}

struct Maker<'a> {
    prng: Prng,
    payloads: &'a [Payload; 2],
    steps: Vec<Vec<String>>,
    new: Vec<String>,
    calls: u64,
    texts: u64,
    /// Whether this client marks what it sends, writes strings, keeps system messages inside.
    marks: bool,
    systems: bool,
}

/// The talk of this seed.
pub(crate) fn talk(seed: u64, payloads: &[Payload; 2]) -> Talk {
    let mut prng = Prng::new(seed).fork("talk");
    let (marks, systems) = (prng.chance(0.3), prng.chance(0.3));
    let groups = if prng.chance(0.01) { prng.between(20, 60) } else { prng.between(1, 7) };
    let mut maker = Maker { prng, payloads, steps: Vec::new(), new: Vec::new(), calls: 0, texts: 0, marks, systems };
    for _ in 0..groups {
        maker.user_turn();
        maker.answer();
    }
    maker.user_turn();
    Talk { steps: maker.steps }
}

impl Maker<'_> {
    fn push(&mut self, role: &str, content: serde_json::Value) {
        self.new.push(json!({"role": role, "content": content}).to_string());
    }

    fn send(&mut self) {
        self.steps.push(std::mem::take(&mut self.new));
    }

    fn text(&mut self) -> String {
        let chars = match self.prng.below(1_000) {
            0 => self.prng.between(10_000, 60_000),
            1..=50 => self.prng.between(500, 4_000),
            _ => self.prng.between(1, 300),
        };
        let sorts = [
            "the harbour was quiet and nobody asked ",
            "港口很安静，没有人问起。",
            "fn main() { let x = \"\\u{e9}\"; }\n",
            "{\"id\": 4711, \"ok\": true} ",
            "größer \u{1f30a} naïve ",
        ];
        let sort = self.prng.pick(&sorts).copied().unwrap_or("x");
        // No two texts are the same, so that what was sent can be told from what was said.
        self.texts += 1;
        format!("{} {}.", sort.chars().cycle().take(chars as usize).collect::<String>(), self.texts)
    }

    fn media(&mut self) -> serde_json::Value {
        if self.prng.chance(0.8) {
            let data = &self.payloads[0].base64;
            return json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}});
        }
        let data = &self.payloads[1].base64;
        json!({"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": data}, "title": "a book"})
    }

    fn user_turn(&mut self) {
        for _ in 0..if self.prng.chance(0.1) { 2 } else { 1 } {
            let text = self.text();
            if self.prng.chance(0.5) && !self.marks {
                self.push("user", json!(text));
                continue;
            }
            let mut blocks = Vec::new();
            if self.prng.chance(0.1) {
                blocks.push(self.media());
            }
            for _ in 0..self.prng.below(3) {
                blocks.push(json!({"type": "text", "text": self.text()}));
            }
            let mut last = json!({"type": "text", "text": text});
            if self.marks {
                last["cache_control"] = json!({"type": "ephemeral"});
            }
            blocks.push(last);
            self.push("user", json!(blocks));
        }
        if self.systems && self.prng.chance(0.2) {
            let text = self.text();
            let content = if self.prng.chance(0.5) { json!(text) } else { json!([{"type": "text", "text": text}]) };
            self.push("system", content);
        }
        self.send();
    }

    /// A tool loop of no or many rounds, and the last word.
    fn answer(&mut self) {
        let rounds = match self.prng.below(1_000) {
            0..=4 => self.prng.between(10, 40),
            5..=350 => self.prng.between(1, 4),
            _ => 0,
        };
        for _ in 0..rounds {
            self.round();
        }
        let mut blocks = self.thoughts();
        if self.prng.chance(0.1) {
            blocks.push(json!({"type": "server_tool_use", "id": format!("srvtoolu_{}", self.calls), "name": "web_search", "input": {"query": "x"}}));
            blocks.push(json!({"type": "web_search_tool_result", "tool_use_id": format!("srvtoolu_{}", self.calls), "content": []}));
            self.calls += 1;
        }
        blocks.push(json!({"type": "text", "text": self.text(), "citations": null}));
        if blocks.len() == 1 && self.prng.chance(0.5) {
            let text = self.text();
            self.push("assistant", json!(text));
        } else {
            self.push("assistant", json!(blocks));
        }
    }

    fn thoughts(&mut self) -> Vec<serde_json::Value> {
        if !self.prng.chance(0.5) {
            return Vec::new();
        }
        let text = self.text();
        let mut blocks = vec![json!({"type": "thinking", "thinking": text, "signature": sealed(&text, self.calls)})];
        if self.prng.chance(0.1) {
            blocks.push(json!({"type": "redacted_thinking", "data": "b3BhcXVl"}));
        }
        blocks
    }

    fn round(&mut self) {
        let mut blocks = self.thoughts();
        if self.prng.chance(0.5) {
            blocks.push(json!({"type": "text", "text": self.text()}));
        }
        let mut ids = Vec::new();
        let calls = match self.prng.below(100) {
            0..=2 => self.prng.between(5, 30),
            3..=25 => self.prng.between(2, 4),
            _ => 1,
        };
        for _ in 0..calls {
            let id = format!("toolu_{}", self.calls);
            self.calls += 1;
            blocks.push(json!({"type": "tool_use", "id": id, "name": "read", "input": {"z": self.text(), "a": 1.50}}));
            ids.push(id);
        }
        self.push("assistant", json!(blocks));
        let mut results: Vec<serde_json::Value> = ids.iter().map(|id| self.result(id)).collect();
        if results.len() > 1 && self.prng.chance(0.2) {
            // The API takes results in several messages of one turn.
            let rest = results.split_off(1);
            self.push("user", json!(results));
            results = rest;
        }
        if self.prng.chance(0.1) {
            results.push(json!({"type": "text", "text": self.text()}));
        }
        self.push("user", json!(results));
        self.send();
    }

    fn result(&mut self, id: &str) -> serde_json::Value {
        let content = match self.prng.below(10) {
            0 => return json!({"type": "tool_result", "tool_use_id": id}),
            1 => json!([{"type": "text", "text": self.text()}, self.media()]),
            2..=4 => json!([{"type": "text", "text": self.text()}]),
            _ => json!(self.text().repeat(3)),
        };
        json!({"type": "tool_result", "tool_use_id": id, "content": content, "is_error": self.prng.chance(0.1)})
    }
}

/// A seal as the simulator sets it: it takes no other.
fn sealed(thinking: &str, nonce: u64) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut prng = Prng::new(nonce).fork(thinking);
    let mut seal = format!("{nonce:016x}");
    seal.extend((0..80).map(|_| ALPHABET[prng.below(64) as usize] as char));
    seal
}
