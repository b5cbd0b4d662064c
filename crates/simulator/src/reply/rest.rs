//! The rest of an answer that broke off, said as an answer of its own.
//!
//! It thinks anew where the request asks for it, as models do; then come the blemishes of the seam
//! and the rest of the text, word for word, and the tool calls that stood behind it, with the ids they
//! had. It stops for the reason the first one had, or because `max_tokens` of this request end it.

use super::{Block, Reply, add_call, blank, think};
use crate::cache::InputUse;
use crate::continuation::{self, Continuation, ContinuationRules, Forced, GoOn, Interrupted};
use crate::directive::Directives;
use crate::pace::Pace;
use crate::validate::Valid;

/// Composes it, and says what it is made of.
pub(crate) fn go_on(
    valid: &Valid,
    input: InputUse,
    directives: &Directives,
    pace: &Pace,
    seed: u64,
    from: &Interrupted,
    rules: &ContinuationRules,
) -> (Reply, Continuation) {
    let (mut reply, mut prng) = blank(valid, input, directives, seed);
    let text = from.reply.text();
    let (received, rest) = text.split_at(from.at);
    let exact = ContinuationRules::exact();
    let rules = match directives.continuation {
        Some(Forced(rules)) => rules,
        None if from.by == GoOn::Prefill && !rules.prefill => exact,
        None => *rules,
    };
    let seam = continuation::draw(&rules, received, rest, &mut prng.fork("seam"));
    if from.by == GoOn::UserTurn && valid.output_tokens_max > 0 {
        think(&mut reply, valid, pace, None, &mut prng);
    }
    say_rest(&mut reply, valid.output_tokens_max, from, seam.text() + rest);
    let of = from.of.clone();
    let continuation::Blemishes { preamble, reopened, space, repeated } = seam;
    (reply, Continuation { of, by: from.by, from_byte: from.at, preamble, reopened, space, repeated })
}

fn say_rest(reply: &mut Reply, max: u64, from: &Interrupted, mut text: String) {
    let tokenizer = reply.tokenizer;
    let fits = tokenizer.fit(&text, max.saturating_sub(reply.output_tokens));
    let cut = fits < text.len() || max == 0;
    text.truncate(fits);
    if !text.is_empty() {
        reply.output_tokens += tokenizer.count(&text);
        reply.blocks.push(Block::Text(text));
    }
    if cut {
        reply.stop_reason = "max_tokens";
        return;
    }
    for block in &from.reply.blocks {
        if let Block::ToolUse { id, name, input } = block
            && reply.stop_reason != "max_tokens"
        {
            add_call(reply, max, id.clone(), name.clone(), input.clone());
        }
    }
    if reply.stop_reason != "max_tokens" {
        reply.stop_reason = from.reply.stop_reason;
        reply.stop_sequence.clone_from(&from.reply.stop_sequence);
    }
}
