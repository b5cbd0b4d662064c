//! Who asks for what: crowds of clients and the sizes of their requests.

use crate::dice;
use std::time::Duration;
use tidegate_base::Prng;
use tidegate_schedule::{Band, Mix, Prefix};

/// When the requests of a crowd come.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Arrivals {
    /// So many clients, each with its next request when the last one is over.
    Closed(usize),
    /// Whatever happens, so many per second; the coefficient of variation of their gaps.
    Open { per_second: f64, cv: f64 },
}

/// How long answers are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Outputs {
    /// Log-normal.
    Usual { mean: f64 },
    /// Reasoning: a heavy tail, up to the 64k that are allowed.
    Reasoning,
}

/// Beginnings that requests share.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sharing {
    /// None.
    Nothing,
    /// So many system prompts, of so many tokens, which come before all else.
    Prompts { prompts: u64, tokens: f64 },
    /// Each client goes through conversations of so many turns, one after the other.
    Conversations { turns: u32 },
}

/// Clients of one kind, of one tenant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crowd {
    pub(crate) tenant: u32,
    pub(crate) band: Band,
    pub(crate) class: usize,
    pub(crate) arrivals: Arrivals,
    /// Mean input, tokens.
    pub(crate) input: f64,
    pub(crate) outputs: Outputs,
    pub(crate) output_max: u32,
    /// Whether its output is seen while it is produced.
    pub(crate) seen: bool,
    /// How far the estimate of an input may be off, to either side.
    pub(crate) estimate_off: f64,
    pub(crate) sharing: Sharing,
    /// The share of requests whose client leaves before the answer is over.
    pub(crate) leaves: f64,
    /// Seconds after which starting is of no use.
    pub(crate) patience: f64,
    /// Seconds from the beginning at which it comes and goes.
    pub(crate) from: f64,
    pub(crate) until: f64,
}

/// What most crowds are like.
pub(crate) const USUAL: Crowd = Crowd {
    tenant: 0,
    band: Band::Normal,
    class: 0,
    arrivals: Arrivals::Closed(0),
    input: 1_200.0,
    outputs: Outputs::Usual { mean: 550.0 },
    output_max: 4_096,
    seen: true,
    estimate_off: 0.05,
    sharing: Sharing::Nothing,
    leaves: 0.0,
    patience: 600.0,
    from: 0.0,
    until: f64::INFINITY,
};

/// Where a client stands.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) crowd: usize,
    pub(crate) prng: Prng,
    conversation: u64,
    turn: u32,
    /// Tokens said so far in its conversation.
    said: f64,
}

/// What one request is, apart from when and for whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// Tokens as the upstream will count them.
    pub(crate) input: f64,
    /// What the estimate is made from.
    pub(crate) mix: Mix,
    pub(crate) output: f64,
    pub(crate) prefix: Option<Prefix>,
    pub(crate) conversation: Option<Prefix>,
    /// The turn of its conversation, from 0.
    pub(crate) turn: u32,
    /// Seconds to the first byte, and tokens per second from there.
    pub(crate) first_byte: f64,
    pub(crate) speed: f64,
}

/// Letters to a token in the worlds of the judge: what the estimator takes for usual.
const LETTERS_PER_TOKEN: f64 = 1.0 / 0.23;
const CACHE_TTL: Duration = Duration::from_secs(300);

impl Client {
    pub(crate) fn new(crowd: usize, prng: Prng) -> Self {
        Client { crowd, prng, conversation: 0, turn: 0, said: 0.0 }
    }

    /// Its next request.
    pub(crate) fn next(&mut self, crowd: &Crowd) -> Sizes {
        let new = dice::log_normal(&mut self.prng, crowd.input, 0.9).clamp(16.0, 180_000.0).round();
        let output = self.output(crowd);
        let (mut prefix, mut conversation, mut turn, mut input) = (None, None, 0, new);
        match crowd.sharing {
            Sharing::Nothing => {}
            Sharing::Prompts { prompts, tokens } => {
                input += tokens;
                let key = 0x5157_0000 + self.prng.below(prompts);
                prefix = Some(Prefix { key, share: (tokens / input) as f32, ttl: CACHE_TTL });
            }
            Sharing::Conversations { turns } => {
                if self.turn >= turns || self.said == 0.0 {
                    (self.conversation, self.turn, self.said) = (self.prng.next_u64(), 0, 0.0);
                }
                input += self.said;
                let share = (self.said / input) as f32;
                conversation = Some(Prefix { key: self.conversation, share, ttl: CACHE_TTL });
                (turn, self.turn, self.said) = (self.turn, self.turn + 1, input);
            }
        }
        let off = 1.0 + dice::uniform(&mut self.prng, -crowd.estimate_off, crowd.estimate_off);
        let mix = Mix { words: (input * off * LETTERS_PER_TOKEN).round() as u32, ..Mix::default() };
        let first_byte = dice::uniform(&mut self.prng, 0.5, 1.5);
        let speed = dice::uniform(&mut self.prng, 50.0, 100.0);
        Sizes { input, mix, output, prefix, conversation, turn, first_byte, speed }
    }

    fn output(&mut self, crowd: &Crowd) -> f64 {
        let drawn = match crowd.outputs {
            Outputs::Usual { mean } => dice::log_normal(&mut self.prng, mean, 0.8),
            Outputs::Reasoning => dice::pareto(&mut self.prng, 600.0, 1.2),
        };
        drawn.clamp(1.0, f64::from(crowd.output_max)).round()
    }
}
