//! What one reader was told of a stream, over all its connections, and whether that is what it
//! should be: numbers without a gap, one end, the text that was produced.

use serde_json::Value;

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// With `message_stop`.
    Whole,
    /// With an error.
    Broken,
}

/// A place to come back to.
struct Mark {
    cursor: String,
    seq: u64,
    text: usize,
    /// Whether it was the last one.
    end: Option<End>,
}

/// One stream, as far as it was told.
#[derive(Default)]
pub(super) struct Told {
    /// Tidegate's name for it.
    pub(super) stream: Option<String>,
    /// The upstream's id of the request.
    pub(super) request: Option<String>,
    pub(super) end: Option<End>,
    /// The first rule that was broken.
    pub(super) wrong: Option<String>,
    text: String,
    seq: u64,
    marks: Vec<Mark>,
    /// It came back behind the stream's end, and a socket tells that once more.
    again: bool,
}

/// A cursor's number: the hexadecimal digits behind its last `-`.
fn number(cursor: &str) -> Option<u64> {
    u64::from_str_radix(cursor.rsplit_once('-')?.1, 16).ok()
}

impl Told {
    /// Events since the beginning.
    pub(super) fn events(&self) -> usize {
        self.marks.len()
    }

    fn wrong(&mut self, what: impl Into<String>) {
        self.wrong.get_or_insert_with(|| what.into());
    }

    /// An event. `first` is the first number it stands for, where that was told.
    pub(super) fn event(&mut self, first: Option<u64>, cursor: Option<&str>, json: &str) {
        let Ok(event) = serde_json::from_str::<Value>(json) else { return self.wrong("an event is no JSON") };
        let kind = event["type"].as_str().unwrap_or_default();
        if kind == "ping" {
            return;
        }
        let end = match kind {
            "message_stop" => Some(End::Whole),
            "error" => Some(End::Broken),
            _ => None,
        };
        if std::mem::take(&mut self.again) && cursor.is_none() && end == self.end {
            return;
        }
        if self.end.is_some() {
            return self.wrong(format!("{kind} after the end"));
        }
        match cursor.map(|cursor| (number(cursor), cursor)) {
            Some((Some(seq), cursor)) => {
                let begins = first.unwrap_or(self.seq + 1);
                if begins != self.seq + 1 || seq < begins {
                    return self.wrong(format!("{begins} to {seq} came after {}", self.seq));
                }
                self.seq = seq;
                self.text.push_str(event["delta"]["text"].as_str().unwrap_or_default());
                self.marks.push(Mark { cursor: cursor.to_owned(), seq, text: self.text.len(), end });
            }
            // What ends a reader and not the stream has no place in it.
            None if end == Some(End::Broken) => {}
            _ => return self.wrong(format!("{kind} without a cursor")),
        }
        self.end = end;
    }

    /// The word that a stream is over, and its last number.
    pub(super) fn over(&mut self, seq: u64) {
        if self.end != Some(End::Whole) || seq != self.seq {
            self.wrong(format!("the end says {seq} after {} and {:?}", self.seq, self.end));
        }
    }

    /// Forgets what came after one of the events, `share` of the way from the first to the last: the
    /// cursor to come back with, `None` for the beginning.
    pub(super) fn back(&mut self, share: f64) -> Option<String> {
        // One more than there are: the beginning is a place too.
        let kept = ((self.marks.len() + 1) as f64 * share) as usize;
        self.marks.truncate(kept.min(self.marks.len()));
        let (seq, text, end) = self.marks.last().map_or((0, 0, None), |mark| (mark.seq, mark.text, mark.end));
        self.end = end;
        self.again = end == Some(End::Broken);
        self.seq = seq;
        self.text.truncate(text);
        self.marks.last().map(|mark| mark.cursor.clone())
    }

    /// Judges it by what the upstream truly produced.
    pub(super) fn judge(&self, truth: &Value) -> Result<(), String> {
        if let Some(wrong) = &self.wrong {
            return Err(wrong.clone());
        }
        let produced = truth["text"].as_str().ok_or("the truth has no text")?;
        let sent = truth["sent_content_bytes"].as_u64().unwrap_or_default();
        match self.end {
            None => Err("it has no end".to_owned()),
            Some(End::Whole) if self.text == produced => Ok(()),
            Some(End::Broken) if produced.starts_with(&self.text) && self.text.len() as u64 <= sent => Ok(()),
            Some(end) => {
                Err(format!("{end:?}, and {} bytes of text are not the {} produced", self.text.len(), produced.len()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn delta(text: &str) -> String {
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}).to_string()
    }

    fn cursor(seq: u64) -> String {
        format!("str_a:00000001-{seq:016x}")
    }

    fn told() -> Told {
        let mut told = Told::default();
        told.event(Some(1), Some(&cursor(1)), r#"{"type":"message_start"}"#);
        told.event(Some(2), Some(&cursor(2)), &delta("one "));
        told.event(Some(3), Some(&cursor(17)), &delta("two"));
        told
    }

    const STOP: &str = r#"{"type":"message_stop"}"#;

    fn judged(told: &Told) -> Result<(), String> {
        told.judge(&json!({"text": "one two", "sent_content_bytes": 7}))
    }

    #[test]
    fn what_is_as_it_should_be_is_good_also_told_twice_from_a_cursor() {
        let mut told = told();
        told.event(Some(18), Some(&cursor(18)), STOP);
        told.over(18);
        assert_eq!(judged(&told), Ok(()));
        // After the last event there is nothing more but the word that it is over.
        assert_eq!(told.back(0.99), Some(cursor(18)));
        told.over(18);
        assert_eq!(judged(&told), Ok(()));
        assert_eq!(told.back(0.5), Some(cursor(2)));
        assert_eq!(judged(&told), Err("it has no end".to_owned()));
        told.event(None, Some(&cursor(17)), &delta("two"));
        told.event(None, None, r#"{"type":"ping"}"#);
        told.event(None, Some(&cursor(18)), STOP);
        assert_eq!(judged(&told), Ok(()));
        assert_eq!((told.back(0.0), told.events()), (None, 0));
    }

    #[test]
    fn gaps_repeats_two_ends_and_other_texts_are_wrong() {
        let wrong = |last: &dyn Fn(&mut Told)| {
            let mut told = told();
            last(&mut told);
            judged(&told).unwrap_err()
        };
        let stop = |told: &mut Told| told.event(Some(18), Some(&cursor(18)), STOP);
        assert!(wrong(&|t| t.event(Some(19), Some(&cursor(19)), STOP)).contains("19 to 19 came after 17"));
        assert!(wrong(&|t| t.event(None, Some(&cursor(17)), STOP)).contains("18 to 17"));
        assert!(wrong(&|t| (0..2).for_each(|_| stop(t))).contains("after the end"));
        assert!(
            wrong(&|t| {
                stop(t);
                t.over(17)
            })
            .contains("the end says 17")
        );
        assert!(
            wrong(&|t| {
                t.event(Some(18), Some(&cursor(18)), &delta("!"));
                t.event(None, Some(&cursor(19)), STOP)
            })
            .contains("8 bytes")
        );
        assert!(wrong(&|_| {}).contains("no end"));
        assert!(wrong(&|t| t.event(None, None, STOP)).contains("without a cursor"));
    }

    #[test]
    fn whoever_comes_back_behind_an_error_is_told_it_once_more_and_nothing_else() {
        let error = r#"{"type":"error"}"#;
        let behind = || {
            let mut told = told();
            told.event(Some(18), Some(&cursor(18)), error);
            assert_eq!(told.back(0.99), Some(cursor(18)));
            told
        };
        let judged = |told: Told| told.judge(&json!({"text": "one two", "sent_content_bytes": 7}));
        assert_eq!(judged(behind()), Ok(()), "over SSE nothing comes");
        let mut once = behind();
        once.event(None, None, error);
        assert_eq!(judged(once), Ok(()));
        let mut twice = behind();
        (0..2).for_each(|_| twice.event(None, None, error));
        assert!(judged(twice).unwrap_err().contains("error after the end"));
        let mut other = behind();
        other.event(Some(19), Some(&cursor(19)), STOP);
        assert!(judged(other).unwrap_err().contains("message_stop after the end"));
    }

    #[test]
    fn a_broken_stream_is_a_beginning_of_what_was_sent() {
        let mut told = told();
        told.event(None, None, r#"{"type":"error"}"#);
        assert_eq!(judged(&told), Ok(()));
        assert!(told.judge(&json!({"text": "one two", "sent_content_bytes": 4})).is_err());
        assert!(told.judge(&json!({"text": "one, two", "sent_content_bytes": 8})).is_err());
    }
}
