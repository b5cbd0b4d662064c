//! What the model answers: composed whole, before the first byte, from the seed and the request.
//!
//! The generator is seeded with the seed and a hash of the request body without its `stream` field,
//! so the same request has the same answer, streamed or not, retried or not, on every machine. An
//! answer is a list of blocks (thinking, text, tool calls), why it stopped, and what it used; how
//! it is sent is `events.rs`, how it is written down as one JSON document is `document.rs`.
//!
//! - *Thinking* comes where the request asks for it, and on models that think by default in one
//!   answer of four. `display: "omitted"` leaves the block its signature and takes its text.
//! - *Tools*: `tool_choice` `any` or `tool` forces one call; with `auto`, the last user message asks
//!   for one by naming it (two names, two calls) or by saying "use a tool".
//! - *Length* is the pace's, cut by `max_tokens`; a tool call that does not fit is left out.
//! - `stop_sequences` end the text before their first occurrence.
//! - `echo...` models say the text of the last user message, verbatim or garbled (`echo.rs`).
//! - With `output_config.format` the text is a JSON document of that schema.
//! - A request to go on with an answer that broke off is answered with that one's rest (`rest.rs`).

pub(crate) mod document;
mod echo;
mod prose;
mod rest;
mod schema;

pub(crate) use rest::go_on;

use crate::cache::InputUse;
use crate::directive::Directives;
use crate::pace::Pace;
use crate::signature;
use crate::tokens::Tokenizer;
use crate::validate::Valid;
use echo::Echo;
use serde_json::{Map, Value};
use tidegate_base::Prng;

/// One block of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Block {
    /// Thinking; `text` is empty if it is not shown.
    Thinking {
        /// What is shown of it.
        text: String,
        /// The seal that has to come back unchanged.
        signature: String,
        /// What it cost.
        tokens: u64,
    },
    /// Text.
    Text(String),
    /// A call of a tool.
    ToolUse {
        /// `toolu_...`.
        id: String,
        /// The tool's name.
        name: String,
        /// The input, as the JSON text that is streamed.
        input: String,
    },
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// `msg_...`.
    pub id: String,
    /// The model as the request named it.
    pub model: String,
    /// The content.
    pub blocks: Vec<Block>,
    /// `stop_reason`.
    pub stop_reason: &'static str,
    /// `stop_sequence`, if that is why it stopped.
    pub stop_sequence: Option<String>,
    /// Tokens of the request; where it uses the prompt cache, those after the last mark.
    pub input_tokens: u64,
    /// Tokens of the request that were read from the prompt cache.
    pub cache_read_tokens: u64,
    /// Tokens of the request that were written to it for five minutes.
    pub cache_5m_tokens: u64,
    /// Tokens of the request that were written to it for an hour.
    pub cache_1h_tokens: u64,
    /// Tokens of the answer, thinking included.
    pub output_tokens: u64,
    /// Tokens of the thinking.
    pub thinking_tokens: u64,
    pub(crate) tokenizer: Tokenizer,
    /// Where the pieces fall when it is streamed.
    pub(crate) prng: Prng,
}

impl Reply {
    /// Its text blocks, joined.
    pub fn text(&self) -> String {
        let text = |block: &Block| if let Block::Text(text) = block { Some(text.clone()) } else { None };
        self.blocks.iter().filter_map(text).collect()
    }

    /// Bytes of text, visible thinking and tool input.
    pub fn content_bytes(&self) -> u64 {
        let block = |block: &Block| match block {
            Block::Thinking { text, .. } | Block::Text(text) | Block::ToolUse { input: text, .. } => text.len() as u64,
        };
        self.blocks.iter().map(block).sum()
    }
}

/// An answer to a valid request that says nothing yet, and the dice for what it will say.
fn blank(valid: &Valid, input: InputUse, directives: &Directives, seed: u64) -> (Reply, Prng) {
    let mut prng = Prng::new(directives.seed.unwrap_or(seed) ^ fingerprint(&valid.body));
    let reply = Reply {
        id: id("msg_01", &mut prng),
        model: valid.model_id.clone(),
        blocks: Vec::new(),
        stop_reason: "end_turn",
        stop_sequence: None,
        input_tokens: input.uncached,
        cache_read_tokens: input.read,
        cache_5m_tokens: input.created_5m,
        cache_1h_tokens: input.created_1h,
        output_tokens: 0,
        thinking_tokens: 0,
        tokenizer: valid.model.tokenizer,
        prng: prng.fork("pieces"),
    };
    (reply, prng)
}

/// Composes the answer to a valid request.
pub(crate) fn compose(valid: &Valid, input: InputUse, directives: &Directives, pace: &Pace, seed: u64) -> Reply {
    let (mut reply, mut prng) = blank(valid, input, directives, seed);
    let max = valid.output_tokens_max;
    if max == 0 {
        reply.stop_reason = "max_tokens";
        return reply;
    }
    let asked = last_user_text(&valid.body);
    let echo = (valid.model.class == "echo").then(|| Echo::of(&valid.model_id));
    let echoed = echo.map(|echo| echo.say(&asked, &mut prng));
    let aloud = echo.filter(|echo| echo.thinking).map(|_| asked.as_str());
    think(&mut reply, valid, pace, aloud, &mut prng);
    if reply.output_tokens >= max {
        reply.stop_reason = "max_tokens";
        return reply;
    }
    let calls = tool_calls(valid, directives, &asked, &mut prng);
    let forced = matches!(choice(&valid.body), Some("any" | "tool"));
    if calls.is_empty() || !forced {
        say(&mut reply, valid, pace, echoed.as_deref(), !calls.is_empty(), &mut prng);
    }
    if reply.stop_reason == "end_turn" {
        for (name, schema) in calls {
            if reply.stop_reason != "max_tokens" {
                let told = echoed.as_deref().filter(|_| echo.is_some_and(|echo| echo.tool));
                call(&mut reply, max, name, schema, told, &mut prng);
            }
        }
    }
    if let Some(stop_reason) = directives.stop_reason {
        reply.stop_reason = stop_reason;
        reply.stop_sequence = None;
    }
    reply
}

/// FNV-1a of the body, `stream` left out.
fn fingerprint(body: &Value) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    let mut eat = |bytes: &[u8]| {
        for b in bytes {
            hash = (hash ^ u64::from(*b)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    };
    for (key, value) in body.as_object().into_iter().flatten().filter(|(key, _)| *key != "stream") {
        eat(key.as_bytes());
        eat(value.to_string().as_bytes());
    }
    hash
}

/// A prefix and 22 characters of the API's alphabet.
fn id(prefix: &str, prng: &mut Prng) -> String {
    const ALPHABET: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
    let mut id = prefix.to_owned();
    id.extend((0..22).map(|_| ALPHABET[prng.below(58) as usize] as char));
    id
}

fn choice(body: &Value) -> Option<&str> {
    body.get("tool_choice").and_then(|choice| choice.get("type")).and_then(Value::as_str)
}

fn last_user(body: &Value) -> Option<&Value> {
    let messages = body.get("messages").and_then(Value::as_array)?;
    messages.iter().rfind(|message| message.get("role").and_then(Value::as_str) == Some("user"))
}

/// The text of the last user message, its text blocks joined without anything between.
fn last_user_text(body: &Value) -> String {
    match last_user(body).and_then(|message| message.get("content")) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(blocks)) => {
            blocks.iter().filter_map(|block| block.get("text").and_then(Value::as_str)).collect()
        }
        _ => String::new(),
    }
}

fn think(reply: &mut Reply, valid: &Valid, pace: &Pace, aloud: Option<&str>, prng: &mut Prng) {
    let asked = valid.body.get("thinking").filter(|thinking| !thinking.is_null());
    let field = |name: &str| asked.and_then(|thinking| thinking.get(name));
    let thinks = match field("type").and_then(Value::as_str) {
        Some("adaptive" | "enabled") => true,
        Some("between_tools") => last_user(&valid.body)
            .and_then(|message| message.get("content"))
            .and_then(Value::as_array)
            .is_some_and(|blocks| blocks.iter().any(|b| b.get("type").and_then(Value::as_str) == Some("tool_result"))),
        Some(_) => false,
        None => valid.model.thinking.unasked && prng.chance(0.25),
    };
    let wanted = pace.thinking_tokens.draw(prng);
    let budget = field("budget_tokens").and_then(Value::as_u64).unwrap_or(u64::MAX);
    let tokens = wanted.min(budget).min(valid.output_tokens_max);
    let nonce = prng.next_u64();
    if !thinks || tokens == 0 {
        return;
    }
    let omitted = match field("display").and_then(Value::as_str) {
        Some(display) => display == "omitted",
        None => valid.model.thinking.omitted,
    };
    let mut text = String::new();
    match aloud {
        _ if omitted => {}
        Some(aloud) => text.push_str(&aloud[..reply.tokenizer.fit(aloud, tokens)]),
        None => prose::write(&mut text, tokens, reply.tokenizer, prng),
    }
    let signature = signature::sign(&text, nonce);
    reply.blocks.push(Block::Thinking { text, signature, tokens });
    reply.thinking_tokens = tokens;
    reply.output_tokens = tokens;
}

fn say(reply: &mut Reply, valid: &Valid, pace: &Pace, echoed: Option<&str>, before_call: bool, prng: &mut Prng) {
    let tokenizer = reply.tokenizer;
    let wanted = pace.output_tokens.draw(prng);
    let format =
        valid.body.get("output_config").and_then(|config| config.get("format")).and_then(|format| format.get("schema"));
    let mut text = String::new();
    if let Some(echoed) = echoed {
        text.push_str(echoed);
    } else if let Some(schema) = format {
        text = schema::instance(schema, prng).to_string();
    } else {
        prose::write(&mut text, if before_call { wanted.min(24) } else { wanted }, tokenizer, prng);
    }
    let room = valid.output_tokens_max - reply.output_tokens;
    let fits = tokenizer.fit(&text, room);
    let stops = valid.body.get("stop_sequences").and_then(Value::as_array).into_iter().flatten();
    let stop = stops.filter_map(|stop| Some((text.find(stop.as_str()?)?, stop.as_str()?))).min_by_key(|(at, _)| *at);
    match stop {
        Some((at, stop)) if at <= fits => {
            reply.stop_reason = "stop_sequence";
            reply.stop_sequence = Some(stop.to_owned());
            text.truncate(at);
        }
        _ if fits < text.len() => {
            reply.stop_reason = "max_tokens";
            text.truncate(fits);
        }
        _ => {}
    }
    if !text.is_empty() {
        reply.output_tokens += tokenizer.count(&text);
        reply.blocks.push(Block::Text(text));
    }
}

/// The tools to call, with their schemas.
fn tool_calls<'a>(
    valid: &'a Valid,
    directives: &Directives,
    asked: &str,
    prng: &mut Prng,
) -> Vec<(&'a str, &'a Value)> {
    let tools = valid.body.get("tools").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let custom: Vec<(&str, &Value)> = tools
        .iter()
        .filter_map(|tool| Some((tool.get("name")?.as_str()?, tool.get("input_schema").unwrap_or(&Value::Null))))
        .collect();
    let named = |name: &str| custom.iter().filter(|(known, _)| *known == name).copied().take(1).collect();
    let chosen = valid.body.get("tool_choice");
    if choice(&valid.body) == Some("none") {
        return Vec::new();
    }
    if let Some(tool) = &directives.tool {
        return named(tool);
    }
    match choice(&valid.body) {
        Some("tool") => named(chosen.and_then(|c| c.get("name")).and_then(Value::as_str).unwrap_or("")),
        Some("any") => prng.pick(&custom).copied().into_iter().collect(),
        _ if valid.model.class == "echo" => Vec::new(),
        _ => {
            let one = chosen.and_then(|c| c.get("disable_parallel_tool_use")).and_then(Value::as_bool) == Some(true);
            let mut calls: Vec<(&str, &Value)> =
                custom.iter().filter(|(name, _)| asked.contains(name)).copied().collect();
            if calls.is_empty() && asked.to_lowercase().contains("use a tool") {
                calls.extend(prng.pick(&custom).copied());
            }
            calls.truncate(if one { 1 } else { 4 });
            calls
        }
    }
}

fn call(reply: &mut Reply, max: u64, name: &str, schema: &Value, told: Option<&str>, prng: &mut Prng) {
    let mut input =
        Some(schema::instance(schema, prng)).filter(Value::is_object).unwrap_or_else(|| Value::Object(Map::new()));
    if let Some(told) = told {
        echo::tell(&mut input, schema, told);
    }
    let input = input.to_string();
    let id = id("toolu_01", prng);
    add_call(reply, max, id, name.to_owned(), input);
}

/// Adds a tool call, if there is room for it.
fn add_call(reply: &mut Reply, max: u64, id: String, name: String, input: String) {
    let tokens = 4 + reply.tokenizer.count(&name) + reply.tokenizer.count(&input);
    if reply.output_tokens + tokens > max {
        reply.stop_reason = "max_tokens";
        return;
    }
    reply.output_tokens += tokens;
    reply.stop_reason = "tool_use";
    reply.blocks.push(Block::ToolUse { id, name, input });
}
