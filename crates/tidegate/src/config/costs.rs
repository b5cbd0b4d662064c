//! `[usage]`, `[[price]]` and a tenant's `budget`: what tokens cost, where it is kept what was used,
//! and how much of it a tenant may use in a month.

use super::places::Places;
use super::values::{Becomes, Quantity, Time};
use super::{Config, ConfigError};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use tidegate_base::Usd;
use tidegate_observe::{Budget, Price, Prices, Reached, Unpriced, per_million};

const DAY_S: u64 = 24 * 60 * 60;
/// Longest time that is kept: rows of ten years are some gigabytes at worst.
const KEEP_DAYS_MAX: u64 = 3_660;

/// `[usage]`
#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct UsageTable {
    pub(super) file: Option<PathBuf>,
    keep: Option<Time>,
}

impl UsageTable {
    /// Every key of it.
    #[cfg(test)]
    pub(super) const KEYS: &[&str] = &["file", "keep"];

    /// Sets what stands in the table over the configuration, which has its conversations by now.
    pub(super) fn set(self, places: &Places<'_>, config: &mut Config) -> Result<(), ConfigError> {
        let wrong = |key: &str, why: &str| places.wrong("usage", 0, key, why);
        if let Some(keep) = self.keep {
            let span: std::time::Duration = keep.becomes();
            let days = span.as_secs() / DAY_S;
            // A budget needs its month.
            if !(31..=KEEP_DAYS_MAX).contains(&days) || !span.as_secs().is_multiple_of(DAY_S) {
                return Err(wrong("keep", "is no number of days from 31 to 3660; write for example \"400 d\""));
            }
            config.settings.costs.kept_days = u32::try_from(days).unwrap_or(u32::MAX);
        }
        if self.file.is_some() && self.file == config.conversations {
            return Err(wrong(
                "file",
                "is the file of [conversations]: what was used is kept there if this is left out",
            ));
        }
        config.usage = self.file;
        Ok(())
    }
}

/// A share, such as `80 %`.
#[derive(Clone, Copy)]
pub(super) struct Percent(u8);

impl FromStr for Percent {
    type Err = NoPercent;
    fn from_str(text: &str) -> Result<Self, NoPercent> {
        let number = text.trim().strip_suffix('%').map(str::trim_end);
        let number = number.filter(|n| n.bytes().all(|b| b.is_ascii_digit())).and_then(|n| n.parse().ok());
        number.filter(|n| (1..=100).contains(n)).map(Percent).ok_or_else(|| NoPercent(text.to_owned()))
    }
}

/// What was written in place of a share.
pub(super) struct NoPercent(String);

impl fmt::Display for NoPercent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no share; write a whole number from 1 to 100, such as \"80 %\"", self.0)
    }
}

type Money = Quantity<Usd>;
type Share = Quantity<Percent>;

impl Becomes<Usd> for Money {
    fn becomes(&self) -> Usd {
        self.0
    }
}

impl Becomes<u8> for Share {
    fn becomes(&self) -> u8 {
        self.0.0
    }
}

/// `[[price]]`, per million tokens.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PriceTable {
    model: String,
    input: Money,
    output: Money,
    cache_read: Option<Money>,
    cache_write_5m: Option<Money>,
    cache_write_1h: Option<Money>,
    batch: Option<Share>,
    #[serde(default)]
    fast: bool,
}

impl PriceTable {
    /// Every key of it.
    #[cfg(test)]
    pub(super) const KEYS: &[&str] =
        &["model", "input", "output", "cache_read", "cache_write_5m", "cache_write_1h", "batch", "fast"];

    /// Puts the `n`th table into the prices.
    fn set(&self, places: &Places<'_>, n: usize, prices: &mut Prices) -> Result<(), ConfigError> {
        let wrong = |key: &str, why: &str| places.wrong("price", n, key, why);
        if self.model.is_empty() || self.model.len() > 128 {
            return Err(wrong("model", "a model's name has 1 to 128 characters"));
        }
        let exact = |key: &str, money: &Money| {
            let why = "is finer than a millionth of a dollar per million tokens";
            per_million(money.becomes()).ok_or_else(|| wrong(key, why))
        };
        let usual = Price::usual(exact("input", &self.input)?, exact("output", &self.output)?);
        let or_usual = |key: &str, money: &Option<Money>, usual: u64| match money {
            Some(money) => exact(key, money),
            None => Ok(usual),
        };
        let price = Price {
            cache_read: or_usual("cache_read", &self.cache_read, usual.cache_read)?,
            cache_write_5m: or_usual("cache_write_5m", &self.cache_write_5m, usual.cache_write_5m)?,
            cache_write_1h: or_usual("cache_write_1h", &self.cache_write_1h, usual.cache_write_1h)?,
            batch_percent: self.batch.as_ref().map_or(usual.batch_percent, Becomes::becomes),
            ..usual
        };
        prices.set(&self.model, self.fast, price);
        Ok(())
    }
}

/// The tables over the prices that are built in.
pub(super) fn prices(places: &Places<'_>, tables: &[PriceTable], prices: &mut Prices) -> Result<(), ConfigError> {
    for (n, table) in tables.iter().enumerate() {
        if tables[..n].iter().any(|before| (&before.model, before.fast) == (&table.model, table.fast)) {
            return Err(places.wrong("price", n, "model", "two tables have this model"));
        }
        table.set(places, n, prices)?;
    }
    Ok(())
}

#[derive(serde::Deserialize, Clone, Copy, Default)]
#[serde(rename_all = "lowercase")]
enum WhenReached {
    #[default]
    Refuse,
    Queue,
    Warn,
}

#[derive(serde::Deserialize, Clone, Copy, Default)]
#[serde(rename_all = "lowercase")]
enum WithoutPrice {
    #[default]
    Serve,
    Refuse,
}

/// `budget` of a `[[tenant]]`.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BudgetTable {
    monthly: Money,
    warn_at: Option<Share>,
    #[serde(default)]
    when_reached: WhenReached,
    #[serde(default)]
    unpriced: WithoutPrice,
}

impl BudgetTable {
    /// Every key of it.
    #[cfg(test)]
    pub(super) const KEYS: &[&str] = &["monthly", "warn_at", "when_reached", "unpriced"];

    /// The budget of `tenant`; why it can have none.
    pub(super) fn budget(&self, tenant: &str) -> Result<Budget, &'static str> {
        if tenant == "own" {
            return Err("is for those who use your money; who brings a credential of their own pays themselves");
        }
        let monthly: Usd = self.monthly.becomes();
        if monthly == Usd::ZERO {
            return Err("is zero: nothing would be served; leave it out for no budget, or take its keys away");
        }
        let reached = match self.when_reached {
            WhenReached::Refuse => Reached::Refuse,
            WhenReached::Queue => Reached::Queue,
            WhenReached::Warn => Reached::Warn,
        };
        let unpriced = match self.unpriced {
            WithoutPrice::Serve => Unpriced::Serve,
            WithoutPrice::Refuse => Unpriced::Refuse,
        };
        Ok(Budget { monthly, warn_percent: self.warn_at.as_ref().map_or(80, Becomes::becomes), reached, unpriced })
    }
}
