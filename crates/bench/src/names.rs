//! Counts by a name that the measured endpoint chose: bounded, and safe to show on a terminal.

use std::collections::BTreeMap;

/// Different names kept apart; the API has eleven error types and about as many stop reasons.
const NAMES_MAX: usize = 32;
/// Where the rest is counted.
const OTHERS: &str = "(others)";
/// Longer names are cut.
const NAME_CHARS_MAX: usize = 64;

/// `name` with everything but letters, digits and `_ - .` replaced, cut to a bearable length.
pub(crate) fn harmless(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "_-. ".contains(c) { c } else { '?' };
    name.chars().take(NAME_CHARS_MAX).map(plain).collect()
}

/// Adds `by` to the count of `name`.
pub(crate) fn count(counts: &mut BTreeMap<String, u64>, name: &str, by: u64) {
    let is_known = counts.contains_key(name) || counts.len() < NAMES_MAX;
    let name = if is_known { name } else { OTHERS };
    match counts.get_mut(name) {
        Some(count) => *count += by,
        None => drop(counts.insert(name.to_owned(), by)),
    }
}

/// Adds all of `more`.
pub(crate) fn add(counts: &mut BTreeMap<String, u64>, more: &BTreeMap<String, u64>) {
    for (name, by) in more {
        count(counts, name, *by);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_that_invents_names_cannot_fill_the_memory() {
        let mut counts = BTreeMap::new();
        for n in 0..1000 {
            count(&mut counts, &format!("error_{n}"), 1);
        }
        assert_eq!(counts.len(), NAMES_MAX + 1);
        assert_eq!(counts.values().sum::<u64>(), 1000);
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(harmless("\u{1b}[2Jrate_limit_error"), "??2Jrate_limit_error");
        assert_eq!(harmless(&"x".repeat(1000)).len(), NAME_CHARS_MAX);
    }
}
