//! Values with units, and tables whose keys each set the field of the same name.

use serde::de::{self, Deserialize, Deserializer};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;
use tidegate_base::{ByteSize, Span};

/// A value of one of the file's own kinds, read from a string with its unit.
pub(super) struct Quantity<T>(pub(super) T);

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for Quantity<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Text<T>(std::marker::PhantomData<T>);
        impl<T: FromStr<Err: fmt::Display>> de::Visitor<'_> for Text<T> {
            type Value = Quantity<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a quantity with its unit in quotes, such as \"30 s\", \"32 MiB\", \"5 USD\" or \"80 %\"")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Quantity<T>, E> {
                text.parse().map(Quantity).map_err(E::custom)
            }
        }
        d.deserialize_str(Text(std::marker::PhantomData))
    }
}

/// What a kind of value becomes in the settings.
pub(super) trait Becomes<T> {
    fn becomes(&self) -> T;
}

impl Becomes<Duration> for Quantity<Span> {
    fn becomes(&self) -> Duration {
        self.0.0
    }
}

impl Becomes<u64> for Quantity<ByteSize> {
    fn becomes(&self) -> u64 {
        self.0.0
    }
}

impl<T: Copy> Becomes<T> for T {
    fn becomes(&self) -> T {
        *self
    }
}

pub(super) type Time = Quantity<Span>;
pub(super) type Size = Quantity<ByteSize>;

/// A table of the file whose keys each set the field of the same name; what is left out keeps its
/// default.
macro_rules! table {
    ($name:ident sets $target:ty { $($key:ident: $kind:ty,)* }) => {
        #[derive(serde::Deserialize, Default)]
        #[serde(deny_unknown_fields, default)]
        pub(super) struct $name { $($key: Option<$kind>,)* }

        impl $name {
            #[cfg(test)]
            pub(super) const KEYS: &[&str] = &[$(stringify!($key)),*];

            pub(super) fn set(&self, target: &mut $target) {
                $(if let Some(value) = &self.$key { target.$key = value.becomes(); })*
            }
        }
    };
}

pub(super) use table;
