//! Values that are written as a string, and read themselves.

use crate::pace::Range;
use crate::quota::Tier;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;
use tidegate_base::Span;

/// A value that is written as a string: `"500 ms"`, `"2-9"`, `"reset-at:300"`.
#[derive(Clone, Debug)]
pub(super) struct Text<T>(pub(super) T);

impl<'de, T> Deserialize<'de> for Text<T>
where
    T: FromStr<Err: fmt::Display>,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map(Text).map_err(D::Error::custom)
    }
}

pub(super) type Time = Text<Span>;

/// `7` or `"2-9"`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbers(pub(super) Range);

impl<'de> Deserialize<'de> for Numbers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            One(u64),
            Two(String),
        }
        match Either::deserialize(deserializer) {
            Ok(Either::One(n)) => Ok(Numbers(Range::exactly(n))),
            Ok(Either::Two(text)) => Range::parse(&text).map(Numbers).ok_or_else(|| D::Error::custom(NUMBERS)),
            Err(_) => Err(D::Error::custom(NUMBERS)),
        }
    }
}

const NUMBERS: &str = "write a whole number, or two as \"20-240\"";

impl<'de> Deserialize<'de> for Tier {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "unlimited" => Ok(Tier::Unlimited),
            "first" => Ok(Tier::First),
            "start" => Ok(Tier::Start),
            "build" => Ok(Tier::Build),
            "scale" => Ok(Tier::Scale),
            other => {
                Err(D::Error::custom(format!("`{other}` is not a tier; write unlimited, first, start, build or scale")))
            }
        }
    }
}

pub(super) fn time(text: Option<Time>, default: Duration) -> Duration {
    text.map_or(default, |time| time.0.0)
}
