//! An object put together, member by member.

use serde::Serialize;

/// An object that has begun.
pub(super) struct Members<'o> {
    out: &'o mut Vec<u8>,
    /// What goes before the next member.
    before: u8,
}

impl<'o> Members<'o> {
    /// Begins an object.
    pub(super) fn begin(out: &'o mut Vec<u8>) -> Self {
        Members { out, before: b'{' }
    }

    /// Begins a frame of this type.
    pub(super) fn of(out: &'o mut Vec<u8>, kind: &str) -> Self {
        let mut members = Members::begin(out);
        members.value("type", kind);
        members
    }

    fn key(&mut self, key: &str) -> &mut Vec<u8> {
        self.out.extend_from_slice(&[self.before, b'"']);
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.before = b',';
        self.out
    }

    /// JSON as it is.
    pub(super) fn raw(&mut self, key: &str, json: &str) -> &mut Self {
        self.key(key).extend_from_slice(json.as_bytes());
        self
    }

    /// A string, a number, or a list or map of them.
    pub(super) fn value<T: Serialize + ?Sized>(&mut self, key: &str, value: &T) -> &mut Self {
        // These can always be written, and memory takes all of it.
        let _ = serde_json::to_writer(self.key(key), value);
        self
    }

    /// The same, if it is there.
    pub(super) fn some<T: Serialize>(&mut self, key: &str, value: Option<T>) -> &mut Self {
        if let Some(value) = value {
            self.value(key, &value);
        }
        self
    }

    /// Ends the object, which has at least one member.
    pub(super) fn end(&mut self) {
        self.out.push(b'}');
    }
}
