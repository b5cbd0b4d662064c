//! Sizes and spans as people write them in a config file: `32 MiB`, `500 ms`, `2 min`.
//!
//! A number without a unit is refused: a silent factor of a thousand is how timeouts get lost.
//! Sizes: `B`, `KB`/`MB`/`GB` (powers of 1000), `KiB`/`MiB`/`GiB` (powers of 1024). Spans: `ms`,
//! `s`, `min`, `h`, `d`. A space before the unit is allowed; fractions are not.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Why a quantity could not be read; the text says what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitError(String);

impl UnitError {
    pub(crate) fn new(what: String) -> Self {
        UnitError(what)
    }
}

impl fmt::Display for UnitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UnitError {}

fn split(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, text[end..].trim_start()))
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// As `usize`, capped at what this machine can address.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for ByteSize {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let wrong = || {
            UnitError(format!("`{text}` is not a size; write for example \"32 MiB\" (B, KB, KiB, MB, MiB, GB, GiB)"))
        };
        let (n, unit) = split(text).ok_or_else(wrong)?;
        let factor = match unit {
            "B" => 1,
            "KB" => 1_000,
            "KiB" => 1 << 10,
            "MB" => 1_000_000,
            "MiB" => 1 << 20,
            "GB" => 1_000_000_000,
            "GiB" => 1 << 30,
            _ => return Err(wrong()),
        };
        n.checked_mul(factor).map(ByteSize).ok_or_else(wrong)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.0;
        for (factor, unit) in [(1u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")] {
            if n >= factor && n.is_multiple_of(factor) {
                return write!(f, "{} {unit}", n / factor);
            }
        }
        write!(f, "{n} B")
    }
}

/// A length of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let wrong = || {
            UnitError(format!(
                "`{text}` is not a length of time; write for example \"500 ms\", \"30 s\", \"2 min\", \"1 h\" or \"90 d\""
            ))
        };
        let (n, unit) = split(text).ok_or_else(wrong)?;
        let ms = match unit {
            "ms" => 1,
            "s" => 1_000,
            "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong()),
        };
        n.checked_mul(ms).map(|ms| Span(Duration::from_millis(ms))).ok_or_else(wrong)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        match ms {
            0 => f.write_str("0 s"),
            _ if ms.is_multiple_of(60_000) => write!(f, "{} min", ms / 60_000),
            _ if ms.is_multiple_of(1_000) => write!(f, "{} s", ms / 1_000),
            _ => write!(f, "{ms} ms"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_read_with_their_unit_and_never_without() {
        assert_eq!("32 MiB".parse(), Ok(ByteSize(32 << 20)));
        assert_eq!("5MB".parse(), Ok(ByteSize(5_000_000)));
        assert_eq!("2 min".parse(), Ok(Span(Duration::from_secs(120))));
        assert_eq!("90 d".parse(), Ok(Span(Duration::from_secs(7_776_000))));
        assert_eq!("250ms".parse(), Ok(Span(Duration::from_millis(250))));
        for bad in ["", "30", "s", "-3 s", "1.5 s", "3 sec", "99999999999999999999 s", "18446744073709551615 h"] {
            assert!(bad.parse::<Span>().is_err(), "{bad}");
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_printed_reads_back(n in 0u64..1 << 40) {
            proptest::prop_assert_eq!(ByteSize(n).to_string().parse(), Ok(ByteSize(n)));
            let span = Span(Duration::from_millis(n));
            proptest::prop_assert_eq!(span.to_string().parse(), Ok(span));
        }
    }
}
