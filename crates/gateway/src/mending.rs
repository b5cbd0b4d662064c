//! A reply that broke off is taken up again (`tidegate-recover`): the path's side of it.
//!
//! What can be done, and how two replies are joined, is decided in the journal room
//! ([`Mender`]); here is what has to be at hand for it: the request as it was, and what each reply
//! used. A mended stream keeps its request's body to its end, as a plain one does to its first
//! content.

use bytes::Bytes;
use tidegate_journal::recover::{Action, Mender, Mode, Rules};
use tidegate_wire::dialect::words::{Recover, meaning};
use tidegate_wire::request::MessagesRequest;
use tidegate_wire::usage::Usage;

/// One message that may be made of several replies.
pub(crate) struct Mending {
    pub(crate) mender: Mender,
    pub(crate) how: Recover,
    body: Bytes,
    request: MessagesRequest,
    /// Of what all replies used, what was reported.
    reported: Usage,
    /// The request that takes it up again was prepared, and has not been answered.
    prepared: bool,
}

impl Mending {
    /// What mends the answer to `request`, whose body is `body`; nothing where nothing is to be mended.
    pub(crate) fn new(how: Recover, body: &Bytes, request: &MessagesRequest) -> Option<Self> {
        let mode = match how {
            Recover::Never => return None,
            Recover::Restart => Mode::Restart,
            Recover::Continue => Mode::Continue,
        };
        let mender = Mender::new(Rules::new(mode));
        Some(Mending {
            mender,
            how,
            body: body.clone(),
            request: request.clone(),
            reported: Usage::default(),
            prepared: false,
        })
    }

    /// The body to send after `action`; an error says why there is none.
    pub(crate) fn prepare(&mut self, action: Action) -> Result<Bytes, &'static str> {
        let body = match action {
            Action::Again | Action::Ended => Ok(self.body.clone()),
            Action::GoOn => self.mender.request(&self.body, &self.request).map_err(|why| why.reason()),
            Action::GiveUp(why) => Err(why.reason()),
        };
        self.prepared = body.is_ok();
        body
    }

    /// Whether the answer broke off, and the request that takes it up again waits to be answered.
    pub(crate) fn is_prepared(&self) -> bool {
        self.prepared
    }

    /// It is answered: the comment that tells its client so.
    pub(crate) fn answered(&mut self) -> Option<String> {
        std::mem::take(&mut self.prepared).then(|| self.comment())
    }

    /// What was used since this was last asked. Of a reply that was cut it is an estimate.
    pub(crate) fn newly_used(&mut self) -> Usage {
        let all = self.mender.usage();
        let before = std::mem::replace(&mut self.reported, all);
        Usage {
            input: all.input.saturating_sub(before.input),
            cache_creation: all.cache_creation.saturating_sub(before.cache_creation),
            cache_creation_1h: all.cache_creation_1h.saturating_sub(before.cache_creation_1h),
            cache_read: all.cache_read.saturating_sub(before.cache_read),
            output: all.output.saturating_sub(before.output),
            ..all
        }
    }

    fn comment(&self) -> String {
        comment(self.how, u64::from(self.mender.segments()))
    }
}

/// The comment that announces the reply which goes on; [`read_comment`] reads it.
pub(crate) fn comment(how: Recover, segment: u64) -> String {
    format!("{COMMENT}how={} segment={segment}\n\n", how.word())
}

const COMMENT: &str = ": tidegate-recovered ";

/// How an answer was taken up again, and which reply goes on, if `event` is the comment about that.
pub(crate) fn read_comment(event: &[u8]) -> Option<(Recover, u64)> {
    let text = std::str::from_utf8(event).ok()?.strip_prefix(COMMENT)?;
    let (how, segment) = text.trim_end().split_once(' ')?;
    let how = meaning(Recover::WORDS, how.strip_prefix("how=")?)?;
    Some((how, segment.strip_prefix("segment=")?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_announced_can_be_read() {
        let body = Bytes::from_static(br#"{"model":"m","max_tokens":9,"messages":[]}"#);
        let request = MessagesRequest::read(&body).unwrap();
        let mending = Mending::new(Recover::Continue, &body, &request).unwrap();
        assert_eq!(read_comment(mending.comment().as_bytes()), Some((Recover::Continue, 1)));
        assert_eq!(read_comment(b": ping\n\n"), None);
        assert!(Mending::new(Recover::Never, &body, &request).is_none());
    }
}
