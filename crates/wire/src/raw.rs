//! JSON objects one level deep: the keys we need are read, everything else stays the bytes it was.
//!
//! Signatures, key order and unknown fields must survive a gateway untouched, so a body is never
//! parsed into a tree and written again. [`RawObject`] borrows from the text and knows where each
//! value stands in it; [`Fields`] is the same thing owned, for putting an answer together.

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

/// The most fields one object may have. The API's have some thirty; a body of nothing but fields
/// would take ten times its size to list.
const FIELDS_MAX: usize = 10_000;

/// An object's fields in order, values unparsed. A repeated key counts by its last value, as the
/// usual parsers have it.
#[derive(Clone, Debug, Default)]
pub struct RawObject<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

struct Shallow<'a>(std::marker::PhantomData<&'a ()>);

impl<'de: 'a, 'a> Visitor<'de> for Shallow<'a> {
    type Value = RawObject<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawObject<'a>, A::Error> {
        let mut fields = Vec::new();
        while let Some(Key(key)) = map.next_key()? {
            if fields.len() == FIELDS_MAX {
                return Err(A::Error::custom(format_args!("an object with more than {FIELDS_MAX} fields")));
            }
            fields.push((key, map.next_value()?));
        }
        Ok(RawObject(fields))
    }
}

struct Key<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Key<'a> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Text<'a>(std::marker::PhantomData<&'a ()>);
        impl<'de: 'a, 'a> Visitor<'de> for Text<'a> {
            type Value = Key<'a>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }
            fn visit_borrowed_str<E>(self, v: &'de str) -> Result<Key<'a>, E> {
                Ok(Key(Cow::Borrowed(v)))
            }
            fn visit_str<E>(self, v: &str) -> Result<Key<'a>, E> {
                Ok(Key(Cow::Owned(v.to_owned())))
            }
        }
        d.deserialize_str(Text(std::marker::PhantomData))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for RawObject<'a> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_map(Shallow(std::marker::PhantomData))
    }
}

impl<'a> RawObject<'a> {
    /// Reads the fields of the object that `text` is.
    pub fn read(text: &'a [u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(text)
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&'a RawValue> {
        self.0.iter().rev().find(|(k, _)| k == key).map(|(_, v)| *v)
    }

    /// The value of `key`, if it has type `T`.
    pub fn parse<T: Deserialize<'a>>(&self, key: &str) -> Option<T> {
        self.get(key).and_then(|v| serde_json::from_str(v.get()).ok())
    }

    /// Whether the value of `key` is the plain string `text`.
    pub fn is(&self, key: &str, text: &str) -> bool {
        let value = self.get(key).map_or("", |v| v.get());
        value.strip_prefix('"').and_then(|v| v.strip_suffix('"')) == Some(text)
    }

    /// Where the value of `key` stands in `text`, the bytes this was read from.
    pub fn place(&self, key: &str, text: &[u8]) -> Option<Range<usize>> {
        let value = self.get(key)?.get();
        let at = (value.as_ptr() as usize).checked_sub(text.as_ptr() as usize)?;
        (at + value.len() <= text.len()).then_some(at..at + value.len())
    }

    /// The fields, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.0.iter().map(|(k, v)| (k.as_ref(), *v))
    }

    /// How many fields there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Calls `see` with each element of the list that `json` is, however long it is. False if it is no
/// list, or a broken one.
pub fn each_element<'a>(json: &'a str, see: impl FnMut(&'a str)) -> bool {
    struct Each<F>(F);
    impl<'de, F: FnMut(&'de str)> Visitor<'de> for Each<F> {
        type Value = ();
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }
        fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
            while let Some(element) = list.next_element::<&'de RawValue>()? {
                (self.0)(element.get());
            }
            Ok(())
        }
    }
    serde_json::Deserializer::from_str(json).deserialize_seq(Each(see)).is_ok()
}

/// An object being put together: ordered fields with raw values.
#[derive(Clone, Debug, Default)]
pub struct Fields(Vec<(String, Box<RawValue>)>);

impl Fields {
    /// The fields of the object that `text` is.
    pub fn read(text: &[u8]) -> Result<Self, serde_json::Error> {
        let object = RawObject::read(text)?;
        Ok(Fields(object.iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect()))
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&RawValue> {
        self.0.iter().rev().find(|(k, _)| k == key).map(|(_, v)| &**v)
    }

    /// Puts `value` at `key`: in its place if it is there, at the end if not.
    pub fn set(&mut self, key: &str, value: Box<RawValue>) {
        match self.0.iter_mut().rev().find(|(k, _)| k == key) {
            Some(field) => field.1 = value,
            None => self.0.push((key.to_owned(), value)),
        }
    }

    /// Puts anything serialisable at `key`. What cannot be serialised is left out.
    pub fn put<T: Serialize + ?Sized>(&mut self, key: &str, value: &T) {
        if let Ok(raw) = serde_json::value::to_raw_value(value) {
            self.set(key, raw);
        }
    }
}

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(Some(self.0.len()))?;
        for (key, value) in &self.0 {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_their_bytes_and_their_place() {
        let text = br#" {"a": 1.50, "b\u0063": {"z":[1, 2]}, "a": "last" }"#;
        let object = RawObject::read(text).unwrap();
        assert_eq!(object.get("a").unwrap().get(), "\"last\"");
        assert_eq!(object.get("bc").unwrap().get(), r#"{"z":[1, 2]}"#);
        assert_eq!(&text[object.place("bc", text).unwrap()], br#"{"z":[1, 2]}"#);
        assert_eq!(object.parse::<String>("a").as_deref(), Some("last"));
    }

    #[test]
    fn an_object_has_only_so_many_fields() {
        let object = |fields: usize| format!("{{{}\"a\":0}}", "\"\":0,".repeat(fields - 1));
        assert_eq!(RawObject::read(object(FIELDS_MAX).as_bytes()).unwrap().len(), FIELDS_MAX);
        assert!(
            RawObject::read(object(FIELDS_MAX + 1).as_bytes()).unwrap_err().to_string().contains("more than 10000")
        );
    }

    #[test]
    fn fields_are_replaced_in_place_and_added_at_the_end() {
        let mut fields = Fields::read(br#"{"a":1e2,"b":null}"#).unwrap();
        fields.put("b", "x");
        fields.put("c", &[1, 2]);
        assert_eq!(serde_json::to_string(&fields).unwrap(), r#"{"a":1e2,"b":"x","c":[1,2]}"#);
    }
}
