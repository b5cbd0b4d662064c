//! Where a path of the conversations' doors leads.
//!
//! ```text
//! /v1/conversations
//! /v1/conversations/{id}            {id} percent-encoded: one with a "/" is one piece all the same
//! /v1/conversations/{id}/turns
//! /v1/conversations/{id}/window
//! /v1/conversations/{id}/fork
//! ```

/// A place; ids are as they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place<'p> {
    /// All of a tenant's conversations.
    All,
    /// One of them.
    One(&'p str),
    /// Its turns.
    Turns(&'p str),
    /// Its window.
    Window(&'p str),
    /// A fork of it.
    Fork(&'p str),
}

impl<'p> Place<'p> {
    /// Where `path` leads, if it is one of these.
    pub(crate) fn of(path: &'p str) -> Option<Self> {
        let rest = path.strip_prefix("/v1/conversations")?;
        if rest.is_empty() {
            return Some(Place::All);
        }
        let mut pieces = rest.strip_prefix('/')?.split('/');
        let id = pieces.next().filter(|id| !id.is_empty())?;
        let place = match pieces.next() {
            None => Place::One(id),
            Some("turns") => Place::Turns(id),
            Some("window") => Place::Window(id),
            Some("fork") => Place::Fork(id),
            Some(_) => return None,
        };
        pieces.next().is_none().then_some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::decoded;
    use proptest::prelude::*;

    #[test]
    fn every_path_leads_to_its_place_or_nowhere() {
        for (path, place) in [
            ("/v1/conversations", Some(Place::All)),
            ("/v1/conversations/a", Some(Place::One("a"))),
            ("/v1/conversations/a%2Fb/turns", Some(Place::Turns("a%2Fb"))),
            ("/v1/conversations/turns/turns", Some(Place::Turns("turns"))),
            ("/v1/conversations/fork", Some(Place::One("fork"))),
            ("/v1/conversations/a/window", Some(Place::Window("a"))),
            ("/v1/conversations/a/fork", Some(Place::Fork("a"))),
            ("/v1/conversations/", None),
            ("/v1/conversationsx", None),
            ("/v1/conversations//turns", None),
            ("/v1/conversations/a/", None),
            ("/v1/conversations/a/b", None),
            ("/v1/conversations/a/turns/", None),
            ("/v1/conversations/a/turns/1", None),
        ] {
            assert_eq!(Place::of(path), place, "{path}");
        }
    }

    #[test]
    fn escapes_are_read_or_refused() {
        assert_eq!(decoded("a%2Fb%20c+%E4%BD%A0", false).unwrap(), "a/b c+你");
        assert_eq!(decoded("a+b%2B", true).unwrap(), "a b+");
        for bad in ["%", "%2", "%zz", "%+1", "a%", "%ff", "%C3"] {
            assert_eq!(decoded(bad, false), None, "{bad}");
        }
    }

    /// Encodes every byte that is not plain.
    fn encoded(text: &str) -> String {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
    }

    proptest! {
        #[test]
        fn what_was_encoded_reads_back(id in "\\PC{1,40}", plus: bool) {
            prop_assert_eq!(decoded(&encoded(&id), plus), Some(id.clone()));
            let path = format!("/v1/conversations/{}/turns", encoded(&id));
            prop_assert_eq!(Place::of(&path), Some(Place::Turns(&encoded(&id))));
        }

        #[test]
        fn anything_is_taken_apart_without_a_panic(path in ".{0,60}", plus: bool) {
            let _ = decoded(&path, plus);
            let under = format!("/v1/conversations/{path}");
            if let Some(Place::One(id)) = Place::of(&under) {
                prop_assert!(!id.is_empty() && !id.contains('/'));
            }
        }
    }
}
