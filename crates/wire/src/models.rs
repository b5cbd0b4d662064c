//! What a proxy has to know of a model by its name: which quota it draws on, whether it thinks
//! unseen, how much it takes at once.
//!
//! Pools as of November 2026 (protocol page, section 3.3): Opus 4.5 to 4.8 share one, Sonnet 4.5
//! and 4.6 share one, every other model has its own. An unknown name is its own class, so a new
//! model works on the day it appears.

/// The class of models that shares one set of limits with `model`.
pub fn class(model: &str) -> &str {
    let shared = [("claude-opus-4-", "claude-opus-4"), ("claude-sonnet-4-", "claude-sonnet-4")];
    for (prefix, class) in shared {
        if model.strip_prefix(prefix).is_some_and(|minor| minor.starts_with(['5', '6', '7', '8'])) {
            return class;
        }
    }
    undated(model)
}

/// The name without its date: `claude-haiku-4-5-20251001` is `claude-haiku-4-5`.
pub fn undated(model: &str) -> &str {
    match model.rsplit_once('-') {
        Some((name, date)) if date.len() == 8 && date.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => model,
    }
}

/// Whether the model may think for minutes without sending a content event: from 4.7 on thinking
/// text is omitted unless asked for. Unknown names count as new.
pub fn thinks_unseen(model: &str) -> bool {
    let old = [
        "claude-3",
        "claude-opus-4-5",
        "claude-opus-4-6",
        "claude-sonnet-4-",
        "claude-haiku-4-5",
        "claude-opus-4-1",
        "claude-opus-4-0",
    ];
    !old.iter().any(|name| model.starts_with(name))
}

/// Whether the last message may be the assistant's, to be gone on from: up to generation 4.5
/// (protocol page, section 1.6). Unknown names count as new.
pub fn takes_prefill(model: &str) -> bool {
    if model.starts_with("claude-3") {
        return true;
    }
    let minor = ["claude-opus-4", "claude-sonnet-4", "claude-haiku-4"].iter().find_map(|name| model.strip_prefix(name));
    let Some(minor) = minor else { return false };
    let number = minor.strip_prefix('-').and_then(|rest| rest.split('-').next()).unwrap_or(minor);
    // `claude-opus-4-20250514` has a date where others have a minor number.
    number.is_empty() || number.len() == 8 || matches!(number, "0" | "1" | "5")
}

/// The most tokens one request to `model` may have, its answer included (protocol page, section
/// 2.4). An unknown name gets the smaller of the two windows there are.
pub fn window(model: &str) -> u64 {
    let wide = ["claude-opus-4-6", "claude-opus-4-7", "claude-opus-4-8", "claude-sonnet-4-6"];
    let generation = |name: &str| {
        let family = ["claude-fable-", "claude-mythos-", "claude-opus-", "claude-sonnet-", "claude-haiku-"];
        let rest = family.iter().find_map(|prefix| name.strip_prefix(prefix))?;
        rest.split('-').next()?.parse::<u32>().ok()
    };
    let new = generation(model).is_some_and(|n| (5..1_000).contains(&n));
    if new || wide.iter().any(|name| model.starts_with(name)) { 1_000_000 } else { 200_000 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_that_share_limits_share_a_class() {
        for (model, want) in [
            ("claude-opus-4-8", "claude-opus-4"),
            ("claude-opus-4-5-20251101", "claude-opus-4"),
            ("claude-sonnet-4-6", "claude-sonnet-4"),
            ("claude-opus-5-5", "claude-opus-5-5"),
            ("claude-haiku-4-5-20251001", "claude-haiku-4-5"),
            ("claude-opus-4-20250514", "claude-opus-4"),
            ("my-model", "my-model"),
        ] {
            assert_eq!(class(model), want, "{model}");
        }
    }

    #[test]
    fn a_window_is_never_thought_wider_than_it_is() {
        for (model, want) in [
            ("claude-opus-5-5", 1_000_000),
            ("claude-haiku-5-5-20261001", 1_000_000),
            ("claude-fable-5", 1_000_000),
            ("claude-sonnet-4-6", 1_000_000),
            ("claude-sonnet-4-5-20250929", 200_000),
            ("claude-haiku-4-5", 200_000),
            ("claude-3-opus-20240229", 200_000),
            ("my-model", 200_000),
        ] {
            assert_eq!(window(model), want, "{model}");
        }
    }

    #[test]
    fn a_prefill_is_for_models_up_to_four_five() {
        for model in
            ["claude-sonnet-4-5-20250929", "claude-opus-4-20250514", "claude-haiku-4-5", "claude-3-opus-20240229"]
        {
            assert!(takes_prefill(model), "{model}");
        }
        for model in
            ["claude-opus-4-6", "claude-sonnet-4-6-20260101", "claude-sonnet-5-5", "claude-haiku-5-5", "my-model"]
        {
            assert!(!takes_prefill(model), "{model}");
        }
    }

    #[test]
    fn newer_models_think_unseen() {
        assert!(thinks_unseen("claude-opus-5-5") && thinks_unseen("claude-opus-4-7"));
        assert!(!thinks_unseen("claude-sonnet-4-5-20250929"));
    }
}
