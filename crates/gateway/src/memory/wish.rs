//! What a request's headers say of its conversation.

use tidegate_conversation::history::Form;

/// Least tokens of a budget: below, no useful window is left.
pub(super) const BUDGET_MIN: u64 = 1_000;
/// Most: ten times the widest window there is.
pub(super) const BUDGET_MAX: u64 = 10_000_000;
/// Longest id of a conversation, characters (`docs/formats/conversations.md`).
pub(super) const ID_CHARS_MAX: usize = 128;

/// What is wished; nothing of it without a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    /// The conversation it belongs to.
    pub(crate) conversation: Option<String>,
    /// The number its turn must get.
    pub(crate) turn: Option<u32>,
    /// What its messages are.
    pub(crate) form: Form,
    /// Whether its messages are to be trimmed though nothing is kept.
    pub(crate) window: bool,
    /// Most tokens of the request.
    pub(crate) budget: Option<u64>,
}

impl Default for Wish {
    fn default() -> Self {
        Wish { conversation: None, turn: None, form: Form::Unknown, window: false, budget: None }
    }
}

impl Wish {
    /// Takes the header `tidegate-NAME` in if it is one of these; what was expected if it is wrong,
    /// and whether it was one at all.
    pub(crate) fn read(&mut self, name: &str, value: &str) -> Result<bool, &'static str> {
        match name {
            "conversation" => {
                let fits = !value.is_empty() && value.chars().count() <= ID_CHARS_MAX;
                if !fits || value.chars().any(char::is_control) {
                    return Err("an id of 1 to 128 characters");
                }
                self.conversation = Some(value.to_owned());
            }
            "turn" => {
                let number = value.parse().ok().filter(|n| *n > 0);
                self.turn = Some(number.ok_or("the number of a turn, from 1")?);
            }
            "body" => {
                self.form = match value {
                    "new" => Form::OnlyNew,
                    "whole" => Form::Whole,
                    _ => return Err("`new` or `whole`"),
                }
            }
            "window" => {
                self.window = match value {
                    "on" => true,
                    "off" => false,
                    _ => return Err("`on` or `off`"),
                }
            }
            "budget" => {
                let tokens = value.parse().ok().filter(|n| (BUDGET_MIN..=BUDGET_MAX).contains(n));
                self.budget = Some(tokens.ok_or("a number of tokens from 1000 to 10000000")?);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Whether anything is wished that changes what is sent.
    pub(crate) fn is_plain(&self) -> bool {
        self.conversation.is_none() && !self.window
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_header_is_read_or_refused() {
        let mut wish = Wish::default();
        for (name, value) in
            [("conversation", "support-17 é"), ("turn", "3"), ("body", "new"), ("window", "on"), ("budget", "50000")]
        {
            assert_eq!(wish.read(name, value), Ok(true), "{name}");
        }
        let want = Wish {
            conversation: Some("support-17 é".into()),
            turn: Some(3),
            form: Form::OnlyNew,
            window: true,
            budget: Some(50_000),
        };
        assert_eq!(wish, want);
        assert_eq!(wish.read("other", "x"), Ok(false));
        let long = "x".repeat(129);
        for (name, value) in [
            ("conversation", ""),
            ("conversation", long.as_str()),
            ("conversation", "a\u{7f}b"),
            ("turn", "0"),
            ("turn", "-1"),
            ("body", "old"),
            ("window", "yes"),
            ("budget", "999"),
        ] {
            assert!(wish.read(name, value).is_err(), "{name}: {value}");
        }
    }
}
