//! Money: a whole number of billionths of a US dollar, so that nothing is lost by adding.
//!
//! Sums saturate: what comes from an upstream may be absurd, and a cost that is too large must not
//! come round as a small one. A float is never made of it.

use crate::UnitError;
use std::fmt;
use std::iter::Sum;
use std::str::FromStr;

/// Billionths in a dollar.
const NANOS: u64 = 1_000_000_000;

/// An amount of US dollars, never negative. The largest is some eighteen billion dollars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Usd(u64);

impl Usd {
    /// Nothing.
    pub const ZERO: Usd = Usd(0);

    /// So many billionths of a dollar.
    pub const fn from_nanos(nanos: u64) -> Self {
        Usd(nanos)
    }

    /// As billionths of a dollar.
    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, more: Usd) -> Self {
        Usd(self.0.saturating_add(more.0))
    }

    /// What is left of it.
    #[must_use]
    pub fn less(self, gone: Usd) -> Self {
        Usd(self.0.saturating_sub(gone.0))
    }

    /// How many hundredths of `whole` it is, rounded down; everything is more than all of nothing.
    pub fn percent_of(self, whole: Usd) -> u64 {
        let percent = (u128::from(self.0) * 100).checked_div(u128::from(whole.0));
        percent.map_or(u64::MAX, |percent| u64::try_from(percent).unwrap_or(u64::MAX))
    }

    /// The amount as digits: two behind the point, or as many as it has.
    pub fn digits(self) -> String {
        let behind = format!("{:09}", self.0 % NANOS);
        let end = behind.trim_end_matches('0').len().max(2);
        format!("{}.{}", self.0 / NANOS, &behind[..end])
    }
}

impl Sum for Usd {
    fn sum<I: Iterator<Item = Usd>>(all: I) -> Usd {
        all.fold(Usd::ZERO, Usd::plus)
    }
}

impl fmt::Display for Usd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} USD", self.digits())
    }
}

impl FromStr for Usd {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let read = || {
            let number = text.trim().strip_suffix("USD")?.trim_end();
            let (whole, behind) = number.split_once('.').unwrap_or((number, ""));
            let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
            if whole.is_empty() || !digits(whole) || !digits(behind) || behind.len() > 9 || number.ends_with('.') {
                return None;
            }
            let dollars: u64 = whole.parse().ok()?;
            let behind: u64 = format!("{behind:0<9}").parse().ok()?;
            dollars.checked_mul(NANOS)?.checked_add(behind).map(Usd)
        };
        read().ok_or_else(|| {
            UnitError::new(format!("`{text}` is no amount; write for example \"500 USD\" or \"0.25 USD\", up to nine digits behind the point"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_read_with_their_currency_and_never_without() {
        assert_eq!("500 USD".parse(), Ok(Usd(500 * NANOS)));
        assert_eq!("0.25USD".parse(), Ok(Usd(250_000_000)));
        assert_eq!("18446744073.709551615 USD".parse(), Ok(Usd(u64::MAX)));
        for bad in [
            "",
            "5",
            "USD",
            ".5 USD",
            "5. USD",
            "-5 USD",
            "1e3 USD",
            "5 EUR",
            "$5",
            "0.0000000001 USD",
            "1,000 USD",
            "18446744073.709551616 USD",
            "99999999999999999999 USD",
        ] {
            assert!(bad.parse::<Usd>().is_err(), "{bad}");
        }
    }

    #[test]
    fn sums_do_not_come_round_and_shares_are_whole() {
        assert_eq!(Usd(u64::MAX).plus(Usd(1)), Usd(u64::MAX));
        assert_eq!(Usd(5).less(Usd(7)), Usd::ZERO);
        assert_eq!([Usd(799), Usd(800), Usd(u64::MAX)].map(|usd| usd.percent_of(Usd(1_000))), [79, 80, u64::MAX / 10]);
        assert_eq!(Usd(0).percent_of(Usd(0)), u64::MAX);
        assert_eq!(Usd(u64::MAX).percent_of(Usd(u64::MAX)), 100);
        assert_eq!(
            (Usd(0).digits(), Usd(1_500_000_000).digits(), Usd(7).to_string()),
            ("0.00".to_owned(), "1.50".to_owned(), "0.000000007 USD".to_owned())
        );
    }

    proptest::proptest! {
        #[test]
        fn what_is_printed_reads_back(nanos: u64) {
            proptest::prop_assert_eq!(Usd(nanos).to_string().parse(), Ok(Usd(nanos)));
        }
    }
}
