//! What tokens cost: a table by model, exact to a millionth of a millionth of a dollar a token.
//!
//! The defaults are the API's list prices of November 2026 (protocol page, section 1.6); what is
//! derived from them is as section 5.6 says: writing to the cache for five minutes 1.25 times the
//! input's price, for an hour twice, reading from it a tenth; a batch half of everything. A model
//! that is not in the table has no price, and its tokens no cost: none is guessed from another's.

use std::collections::BTreeMap;
use tidegate_base::Usd;
use tidegate_wire::models::undated;
use tidegate_wire::usage::Usage;

/// More tokens than any answer has; what an upstream claims beyond is not believed.
pub const TOKENS_MAX: u64 = 1_000_000_000;

/// The prices of one model, in millionths of a dollar per million tokens: the same number is
/// millionths of a millionth of a dollar per token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Price {
    /// Input that was not cached.
    pub input: u64,
    /// Output, thinking included.
    pub output: u64,
    /// Input read from the prompt cache.
    pub cache_read: u64,
    /// Input written to it for five minutes.
    pub cache_write_5m: u64,
    /// The same for an hour.
    pub cache_write_1h: u64,
    /// What a batch pays of all these, hundredths.
    pub batch_percent: u8,
}

impl Price {
    /// A price whose other kinds stand in the API's usual relation to the input's.
    pub const fn usual(input: u64, output: u64) -> Self {
        Price {
            input,
            output,
            cache_read: input.div_ceil(10),
            cache_write_5m: (input * 5).div_ceil(4),
            cache_write_1h: input * 2,
            batch_percent: 50,
        }
    }

    /// What this usage costs, rounded up to a billionth of a dollar once.
    pub fn cost(&self, usage: &Usage) -> Usd {
        let usage = believed(usage);
        let hour = usage.cache_creation_1h.min(usage.cache_creation);
        let parts = [
            (usage.input, self.input),
            (usage.output, self.output),
            (usage.cache_read, self.cache_read),
            (usage.cache_creation - hour, self.cache_write_5m),
            (hour, self.cache_write_1h),
        ];
        let picos: u128 = parts.into_iter().map(|(tokens, price)| u128::from(tokens) * u128::from(price)).sum();
        let hundredths = picos * u128::from(if usage.batch { self.batch_percent } else { 100 });
        Usd::from_nanos(u64::try_from(hundredths.div_ceil(100 * 1_000)).unwrap_or(u64::MAX))
    }
}

/// The same usage without what cannot be.
pub(crate) fn believed(usage: &Usage) -> Usage {
    let of = |tokens: u64| tokens.min(TOKENS_MAX);
    Usage {
        input: of(usage.input),
        cache_creation: of(usage.cache_creation),
        cache_creation_1h: of(usage.cache_creation_1h),
        cache_read: of(usage.cache_read),
        output: of(usage.output),
        ..*usage
    }
}

/// What one amount of the table is per million tokens, if it is exact to a millionth of a dollar.
pub fn per_million(amount: Usd) -> Option<u64> {
    amount.nanos().is_multiple_of(1_000).then(|| amount.nanos() / 1_000)
}

/// Model, dollars per million tokens in and out times a hundred. Haiku 5.5 has "from" prices.
const LISTED: [(&str, u64, u64); 18] = [
    ("claude-fable-5", 1_000, 5_000),
    ("claude-fable-5-1", 1_000, 5_000),
    ("claude-fable-5-2", 1_000, 5_000),
    ("claude-mythos-5", 1_000, 5_000),
    ("claude-mythos-5-1", 1_000, 5_000),
    ("claude-mythos-5-2", 1_000, 5_000),
    ("claude-opus-5-5", 400, 2_000),
    ("claude-opus-5", 500, 2_500),
    ("claude-opus-4-8", 500, 2_500),
    ("claude-opus-4-7", 500, 2_500),
    ("claude-opus-4-6", 500, 2_500),
    ("claude-opus-4-5", 500, 2_500),
    ("claude-sonnet-5-5", 200, 1_000),
    ("claude-sonnet-5", 200, 1_000),
    ("claude-sonnet-4-6", 300, 1_500),
    ("claude-sonnet-4-5", 300, 1_500),
    ("claude-haiku-5-5", 10, 50),
    ("claude-haiku-4-5", 100, 500),
];

/// The table. A fast answer has prices of its own, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prices {
    table: BTreeMap<String, Price>,
    fast: BTreeMap<String, Price>,
}

impl Default for Prices {
    fn default() -> Self {
        let price = |&(model, input, output): &(&str, u64, u64)| {
            (model.to_owned(), Price::usual(input * 10_000, output * 10_000))
        };
        Prices { table: LISTED.iter().map(price).collect(), fast: BTreeMap::new() }
    }
}

impl Prices {
    /// Puts a price in the table, in place of one that is there.
    pub fn set(&mut self, model: &str, fast: bool, price: Price) {
        let table = if fast { &mut self.fast } else { &mut self.table };
        table.insert(model.to_owned(), price);
    }

    /// The price of a model: by its whole name, or by its name without a date.
    pub fn of(&self, model: &str, fast: bool) -> Option<&Price> {
        let table = if fast { &self.fast } else { &self.table };
        table.get(model).or_else(|| table.get(undated(model)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_token_has_its_price() {
        let prices = Prices::default();
        let opus = prices.of("claude-opus-5-5", false).unwrap();
        let million = 1_000_000;
        let cost = |usage: Usage| opus.cost(&usage).digits();
        assert_eq!(cost(Usage { input: million, ..Usage::default() }), "4.00");
        assert_eq!(cost(Usage { output: million, ..Usage::default() }), "20.00");
        assert_eq!(cost(Usage { cache_read: million, ..Usage::default() }), "0.40");
        assert_eq!(cost(Usage { cache_creation: million, ..Usage::default() }), "5.00");
        let hour = Usage { cache_creation: 3 * million, cache_creation_1h: million, ..Usage::default() };
        assert_eq!(cost(hour), "18.00", "two million for five minutes, one for an hour");
        assert_eq!(cost(Usage { batch: true, ..hour }), "9.00");
        assert_eq!(cost(Usage { cache_creation_1h: million, ..Usage::default() }), "0.00", "a part of nothing");
    }

    #[test]
    fn the_cheapest_token_is_exact_and_parts_of_a_billionth_are_rounded_once() {
        let price = Price::usual(2_800, 11_200);
        assert_eq!(price.cost(&Usage { input: 1, ..Usage::default() }).nanos(), 3, "2.8, rounded up");
        assert_eq!(price.cost(&Usage { input: 1, output: 1, ..Usage::default() }).nanos(), 14);
        assert_eq!(price.cost(&Usage { input: 5, ..Usage::default() }).nanos(), 14);
        let haiku = *Prices::default().of("claude-haiku-5-5", false).unwrap();
        assert_eq!((haiku.cache_read, haiku.cache_write_5m, haiku.cache_write_1h), (10_000, 125_000, 200_000));
        let absurd = Usage {
            input: u64::MAX,
            output: u64::MAX,
            cache_creation: 1,
            cache_creation_1h: u64::MAX,
            ..Usage::default()
        };
        assert_eq!(
            haiku.cost(&absurd),
            haiku.cost(&Usage {
                input: TOKENS_MAX,
                output: TOKENS_MAX,
                cache_creation: 1,
                cache_creation_1h: 1,
                ..absurd
            })
        );
    }

    /// Whoever checks a bill finds them there.
    #[test]
    fn the_built_in_prices_stand_in_the_documents() {
        let documents = include_str!("../../../../docs/costs.md");
        let dollars = |hundredths: u64| format!("{}.{:02}", hundredths / 100, hundredths % 100);
        for (model, input, output) in LISTED {
            let told = documents.lines().any(|line| {
                line.contains(&format!("`{model}`"))
                    && line.ends_with(&format!("| {} | {} |", dollars(input), dollars(output)))
            });
            assert!(told, "{model} at {} and {}", dollars(input), dollars(output));
        }
    }

    #[test]
    fn no_price_is_guessed() {
        let mut prices = Prices::default();
        assert_eq!(prices.of("claude-opus-5-5-20260901", false), prices.of("claude-opus-5-5", false));
        for unknown in ["claude-opus-9", "claude-opus-5-5-turbo", "claude", "", "CLAUDE-OPUS-5-5"] {
            assert_eq!(prices.of(unknown, false), None, "{unknown}");
        }
        assert_eq!(prices.of("claude-opus-5-5", true), None, "fast answers cost more");
        prices.set("claude-opus-5-5", true, Price::usual(10_000_000, 50_000_000));
        assert_eq!(prices.of("claude-opus-5-5", true).unwrap().output, 50_000_000);
    }

    #[test]
    fn what_is_finer_than_the_table_is_refused() {
        assert_eq!(per_million("0.0028 USD".parse().unwrap()), Some(2_800));
        assert_eq!(per_million("0.0000001 USD".parse().unwrap()), None);
    }
}
