//! The models the simulated API knows, and what each of them accepts.
//!
//! One row per model id, as the API's documentation stood in November 2026: context and output
//! limits, which `thinking` types it takes, whether it still honours sampling parameters and
//! assistant prefill, and which quota class it is metered in (several models share one). A dated id
//! (`claude-haiku-4-5-20251001`) is the same model under another name. Every id that begins with
//! `echo` is a model of our own: it accepts everything and repeats the last user message.

use crate::tokens::Tokenizer;

/// The `thinking.type` values a model accepts, and what it does when a request names none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Thinking {
    pub(crate) adaptive: bool,
    pub(crate) enabled: bool,
    pub(crate) disabled: bool,
    pub(crate) between_tools: bool,
    /// It may think though the request does not mention thinking.
    pub(crate) unasked: bool,
    /// Its thinking is shown only if the request asks for `display: "summarized"`.
    pub(crate) omitted: bool,
}

const ALWAYS: Thinking =
    Thinking { adaptive: true, enabled: false, disabled: false, between_tools: true, unasked: true, omitted: true };
const BY_DEFAULT: Thinking = Thinking { disabled: true, ..ALWAYS };
const ADAPTIVE: Thinking = Thinking { unasked: false, ..BY_DEFAULT };
const ADAPTIVE_ONLY: Thinking = Thinking { between_tools: false, ..ADAPTIVE };
const BOTH: Thinking = Thinking { enabled: true, omitted: false, ..ADAPTIVE_ONLY };
const BUDGET: Thinking = Thinking { adaptive: false, ..BOTH };
const EVERY: Thinking = Thinking { between_tools: true, ..BOTH };

/// One model as the API sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Model {
    pub(crate) id: &'static str,
    /// The dated name of the same model, where there is one.
    pub(crate) dated: Option<&'static str>,
    pub(crate) display_name: &'static str,
    pub(crate) line: &'static str,
    /// The quota class: models of one class share their buckets.
    pub(crate) class: &'static str,
    pub(crate) created_at: &'static str,
    pub(crate) lifecycle: &'static str,
    pub(crate) context_tokens: u64,
    pub(crate) output_tokens_max: u64,
    pub(crate) thinking: Thinking,
    /// Honours `temperature`, `top_p` and `top_k` (on version 2023-06-01).
    pub(crate) sampling: bool,
    /// A conversation may end with an assistant message to be continued.
    pub(crate) prefill: bool,
    /// Takes `role: "system"` inside `messages`.
    pub(crate) system_role: bool,
    pub(crate) tokenizer: Tokenizer,
}

const MILLION: u64 = 1_000_000;

#[allow(clippy::too_many_arguments, reason = "a row of the table below, read as one line")]
const fn modern(
    id: &'static str,
    display_name: &'static str,
    line: &'static str,
    class: &'static str,
    created_at: &'static str,
    thinking: Thinking,
    system_role: bool,
) -> Model {
    Model {
        id,
        dated: None,
        display_name,
        line,
        class,
        created_at,
        lifecycle: "active",
        context_tokens: MILLION,
        output_tokens_max: 128_000,
        thinking,
        sampling: false,
        prefill: false,
        system_role,
        tokenizer: Tokenizer::Newer,
    }
}

const fn of_4_6(id: &'static str, display_name: &'static str, line: &'static str, class: &'static str) -> Model {
    Model {
        sampling: true,
        tokenizer: Tokenizer::Older,
        ..modern(id, display_name, line, class, "2026-02-05T00:00:00Z", BOTH, false)
    }
}

const fn of_4_5(
    id: &'static str,
    dated: &'static str,
    display_name: &'static str,
    line: &'static str,
    class: &'static str,
    created_at: &'static str,
) -> Model {
    Model {
        dated: Some(dated),
        context_tokens: 200_000,
        output_tokens_max: 64_000,
        thinking: BUDGET,
        prefill: true,
        created_at,
        ..of_4_6(id, display_name, line, class)
    }
}

/// Newest first, the order in which `GET /v1/models` lists them.
pub(crate) static MODELS: &[Model] = &[
    modern("claude-fable-5-2", "Claude Fable 5.2", "fable", "fable-5", "2026-11-10T00:00:00Z", ALWAYS, true),
    modern("claude-mythos-5-2", "Claude Mythos 5.2", "mythos", "mythos-5", "2026-11-10T00:00:00Z", ALWAYS, true),
    modern("claude-haiku-5-5", "Claude Haiku 5.5", "haiku", "haiku-5-5", "2026-10-15T00:00:00Z", ADAPTIVE, false),
    modern("claude-sonnet-5-5", "Claude Sonnet 5.5", "sonnet", "sonnet-5-5", "2026-10-15T00:00:00Z", BY_DEFAULT, false),
    modern("claude-fable-5-1", "Claude Fable 5.1", "fable", "fable-5", "2026-10-01T00:00:00Z", ALWAYS, true),
    modern("claude-opus-5-5", "Claude Opus 5.5", "opus", "opus-5-5", "2026-10-01T00:00:00Z", ALWAYS, true),
    modern("claude-mythos-5-1", "Claude Mythos 5.1", "mythos", "mythos-5", "2026-10-01T00:00:00Z", ALWAYS, true),
    modern("claude-sonnet-5", "Claude Sonnet 5", "sonnet", "sonnet-5", "2026-07-01T00:00:00Z", BY_DEFAULT, false),
    modern("claude-fable-5", "Claude Fable 5", "fable", "fable-5", "2026-06-15T00:00:00Z", ALWAYS, true),
    modern("claude-mythos-5", "Claude Mythos 5", "mythos", "mythos-5", "2026-06-15T00:00:00Z", ALWAYS, true),
    modern("claude-opus-5", "Claude Opus 5", "opus", "opus-5", "2026-06-01T00:00:00Z", ADAPTIVE, true),
    modern("claude-opus-4-8", "Claude Opus 4.8", "opus", "opus-4", "2026-05-01T00:00:00Z", ADAPTIVE_ONLY, true),
    modern("claude-opus-4-7", "Claude Opus 4.7", "opus", "opus-4", "2026-04-01T00:00:00Z", ADAPTIVE_ONLY, false),
    modern(
        "claude-mythos-preview",
        "Claude Mythos Preview",
        "mythos",
        "mythos-5",
        "2026-04-01T00:00:00Z",
        ALWAYS,
        false,
    ),
    of_4_6("claude-opus-4-6", "Claude Opus 4.6", "opus", "opus-4"),
    of_4_6("claude-sonnet-4-6", "Claude Sonnet 4.6", "sonnet", "sonnet-4"),
    of_4_5("claude-opus-4-5", "claude-opus-4-5-20251101", "Claude Opus 4.5", "opus", "opus-4", "2025-11-01T00:00:00Z"),
    of_4_5(
        "claude-haiku-4-5",
        "claude-haiku-4-5-20251001",
        "Claude Haiku 4.5",
        "haiku",
        "haiku-4-5",
        "2025-10-01T00:00:00Z",
    ),
    Model {
        lifecycle: "deprecated",
        ..of_4_5(
            "claude-sonnet-4-5",
            "claude-sonnet-4-5-20250929",
            "Claude Sonnet 4.5",
            "sonnet",
            "sonnet-4",
            "2025-09-29T00:00:00Z",
        )
    },
];

/// The model behind every id that begins with `echo`.
pub(crate) static ECHO: Model = Model {
    sampling: true,
    prefill: true,
    system_role: true,
    tokenizer: Tokenizer::Older,
    ..modern("echo", "Echo", "echo", "echo", "2026-01-01T00:00:00Z", EVERY, true)
};

/// The model of this id, dated ids and `echo...` included.
pub(crate) fn find(id: &str) -> Option<&'static Model> {
    if id.starts_with("echo") {
        return Some(&ECHO);
    }
    MODELS.iter().find(|model| model.id == id || model.dated == Some(id))
}

/// The quota classes, each once.
pub(crate) fn classes() -> Vec<&'static str> {
    let mut classes: Vec<&str> = MODELS.iter().chain([&ECHO]).map(|model| model.class).collect();
    classes.sort_unstable();
    classes.dedup();
    classes
}

pub(crate) fn has_class(class: &str) -> bool {
    classes().contains(&class)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dated_id_is_the_same_model_and_an_unknown_one_is_none() {
        assert_eq!(find("claude-haiku-4-5-20251001").map(|m| m.id), Some("claude-haiku-4-5"));
        assert_eq!(find("echo-anything").map(|m| m.class), Some("echo"));
        assert!(find("claude-haiku-4-5-20200101").is_none());
        assert!(find("gpt-4").is_none());
    }

    #[test]
    fn quota_classes_pool_as_documented() {
        let class = |id| find(id).map(|m| m.class);
        assert!(
            ["claude-opus-4-8", "claude-opus-4-7", "claude-opus-4-6", "claude-opus-4-5"]
                .iter()
                .all(|id| class(id) == Some("opus-4"))
        );
        assert_eq!(class("claude-sonnet-4-6"), class("claude-sonnet-4-5"));
        assert_ne!(class("claude-sonnet-5"), class("claude-sonnet-5-5"));
        assert_ne!(class("claude-opus-5"), class("claude-opus-5-5"));
        assert_eq!(class("claude-fable-5-2"), class("claude-fable-5"));
    }
}
