//! An object of which every field has to be known: taken out one by one, and none may be left.

use super::BadFrame;
use crate::raw::RawObject;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// The longest name of a stream a client may give, characters.
const ID_BYTES_MAX: usize = 64;

/// The fields of an object that were not taken yet.
pub(super) struct Strict<'a> {
    fields: Vec<(String, &'a RawValue)>,
    /// The `id`, for errors.
    id: Option<Box<str>>,
}

impl<'a> Strict<'a> {
    pub(super) fn read(text: &'a str) -> Result<Self, BadFrame> {
        let object = RawObject::read(text.as_bytes()).map_err(|e| {
            let what = e.to_string();
            let what = what.split(" at line ").next().unwrap_or(&what);
            BadFrame {
                id: None,
                text: format!("the message is no JSON object: {what}, at line {} column {}", e.line(), e.column()),
            }
        })?;
        let id = object.parse::<String>("id").filter(|id| is_id(id)).map(Into::into);
        let fields: Vec<_> = object.iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let strict = Strict { fields, id };
        // A frame has a dozen fields; of an object with many the walk ends at the first unknown one.
        for (at, (key, _)) in strict.fields.iter().enumerate().take(64) {
            if strict.fields[..at].iter().any(|(earlier, _)| earlier == key) {
                return Err(strict.wrong(key, "Field is there twice"));
            }
        }
        Ok(strict)
    }

    pub(super) fn wrong(&self, place: &str, what: &str) -> BadFrame {
        // What a client sent goes back to it, but not without end.
        let end = place.floor_char_boundary(128);
        BadFrame { id: self.id.clone(), text: format!("{}: {what}", &place[..end]) }
    }

    fn take(&mut self, key: &str) -> Option<&'a RawValue> {
        let at = self.fields.iter().position(|(k, _)| k == key)?;
        Some(self.fields.swap_remove(at).1).filter(|value| value.get() != "null")
    }

    pub(super) fn object(&mut self, key: &str) -> Result<&'a str, BadFrame> {
        match self.take(key).map(RawValue::get) {
            Some(value) if value.starts_with('{') => Ok(value),
            Some(_) => Err(self.wrong(key, "Input should be an object")),
            None => Err(self.wrong(key, "Field required")),
        }
    }

    pub(super) fn text(&mut self, key: &str) -> Result<Option<Cow<'a, str>>, BadFrame> {
        let Some(value) = self.take(key) else { return Ok(None) };
        read_text(value.get()).map(Some).ok_or_else(|| self.wrong(key, "Input should be a string"))
    }

    pub(super) fn required(&mut self, key: &str) -> Result<Cow<'a, str>, BadFrame> {
        self.text(key)?.ok_or_else(|| self.wrong(key, "Field required"))
    }

    /// A number in `0..=max`.
    pub(super) fn number(&mut self, key: &str, max: u64) -> Result<Option<u64>, BadFrame> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let number = value.get().parse().ok().filter(|n: &u64| *n <= max);
        number.map(Some).ok_or_else(|| self.wrong(key, &format!("Input should be a whole number from 0 to {max}")))
    }

    /// A list of texts, each of which has to be `good`; otherwise `what` the list should be.
    pub(super) fn texts(
        &mut self,
        key: &str,
        most: usize,
        good: impl Fn(&str) -> bool,
        what: &str,
    ) -> Result<Vec<Cow<'a, str>>, BadFrame> {
        let Some(value) = self.take(key) else { return Ok(Vec::new()) };
        let mut texts = Vec::new();
        let mut all_good = true;
        let listed = crate::raw::each_element(value.get(), |element| {
            all_good &= texts.len() < most;
            match read_text(element).filter(|text| all_good && good(text)) {
                Some(text) => texts.push(text),
                None => all_good = false,
            }
        });
        if listed && all_good { Ok(texts) } else { Err(self.wrong(key, what)) }
    }

    /// The client's name for a stream.
    pub(super) fn id(&mut self) -> Result<Box<str>, BadFrame> {
        let id = self.required("id")?;
        if is_id(&id) {
            return Ok(id.into());
        }
        Err(self.wrong("id", "Input should be 1 to 64 characters of A-Z a-z 0-9 . _ : -"))
    }

    /// Ends the reading: nothing may be left.
    pub(super) fn end(self) -> Result<(), BadFrame> {
        match self.fields.iter().map(|(key, _)| key).min() {
            Some(key) => Err(self.wrong(key, "Extra inputs are not permitted")),
            None => Ok(()),
        }
    }
}

pub(super) fn read_text(json: &str) -> Option<Cow<'_, str>> {
    // Borrowed where it has no escapes, which is nearly always.
    let plain = json.strip_prefix('"')?.strip_suffix('"')?;
    if !plain.contains('\\') {
        return Some(Cow::Borrowed(plain));
    }
    serde_json::from_str(json).ok().map(Cow::Owned)
}

/// Whether `id` may name a stream: it is written into every frame, and needs no escapes there.
pub(super) fn is_id(id: &str) -> bool {
    let mark = |b: u8| matches!(b, b'.' | b'_' | b':' | b'-');
    (1..=ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || mark(b))
}
