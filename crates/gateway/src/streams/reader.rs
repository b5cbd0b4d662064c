//! A reader's end of a hosted stream: a place in its log.

use super::StreamTrouble;
use super::hosted::{Hosted, State};
use super::unmasking::{Shown, Unmasking};
use crate::redaction::shown;
use bytes::Bytes;
use std::borrow::Cow;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use tidegate_journal::{Cursor, End, Item, Missed, Next, Shape};
use tidegate_wire::dialect::words::{Recover, Resume};
use tidegate_wire::event::Kind;
use tidegate_wire::http::ResponseHead;

/// A reader this many events behind gets neighbouring deltas as one: they are there already, and
/// fewer are cheaper for everybody.
const LAG_MERGED: u64 = 8;

/// What a reader hears.
pub(crate) enum News {
    /// The answer begins, and is a stream.
    Head(ResponseHead),
    /// The answer is none: a refusal, with its true status.
    Whole(ResponseHead, Bytes),
    /// The answer broke off after the last event, and what follows is its reply so numbered.
    Recovered(Recover, u64),
    /// An event was shown.
    Event,
    /// There is an event, and it may not be shown yet.
    Held,
    /// It is over; the last event was shown before.
    Ended(End),
}

/// One reader. Dropping it leaves the stream.
pub(crate) struct Reader {
    hosted: Arc<Hosted>,
    place: u64,
    head_seen: bool,
    /// The last reply that it heard goes on.
    segment: u64,
    /// Who is woken for it.
    waits: Option<Waker>,
    /// Puts back what was masked, once it is known that something was.
    unmasking: Option<Box<Unmasking>>,
    /// Whether that is known.
    asked: bool,
}

impl Reader {
    /// A reader of `hosted` from `after` on, or from its beginning.
    pub(crate) fn at(hosted: Arc<Hosted>, after: Option<&Cursor>) -> Result<Self, StreamTrouble> {
        let mut state = hosted.state();
        let place = match after {
            None if state.journal.floor() > 0 => return Err(StreamTrouble::Gone),
            None => 0,
            Some(cursor) => state.journal.locate(cursor).map_err(missed)?,
        };
        // Of what was taken up before this place, whoever has the place has heard.
        let heard = state.recovered.iter().filter(|(seq, ..)| *seq < place).map(|(_, _, segment)| *segment);
        let segment = heard.max().unwrap_or(0);
        state.reader_comes();
        drop(state);
        Ok(Reader { hosted, place, head_seen: false, segment, waits: None, unmasking: None, asked: false })
    }

    /// What it reads.
    pub(crate) fn hosted(&self) -> &Arc<Hosted> {
        &self.hosted
    }

    /// The number of the last event it has.
    pub(crate) fn place(&self) -> u64 {
        self.place
    }

    /// The data of the error the stream ended with, if it did.
    pub(crate) fn last_error(&self) -> Option<Vec<u8>> {
        let state = self.hosted.state();
        let before = state.journal.last().checked_sub(1)?;
        match state.journal.next(before, Shape::AsItCame) {
            Ok(Next::Item(item)) if item.kind == Kind::Error => Some(self.shown(&item.data()).into_owned()),
            _ => None,
        }
    }

    /// JSON as this reader is to see it.
    fn shown<'b>(&self, json: &'b [u8]) -> Cow<'b, [u8]> {
        self.hosted.live().map_or(Cow::Borrowed(json), |live| shown(live, json))
    }

    /// The next thing there is; an event is shown to `show`, with the place after it. One that is no
    /// error is shown only if it `may` be.
    pub(crate) fn poll_next(
        &mut self,
        cx: &Context<'_>,
        may: bool,
        show: &mut dyn FnMut(&Shown<'_>, Cursor),
    ) -> Poll<Result<News, StreamTrouble>> {
        let mut guard = self.hosted.state();
        let state = &mut *guard;
        if let Some((head, body)) = state.whole() {
            let body = match self.shown(&body) {
                Cow::Borrowed(_) => body,
                Cow::Owned(restored) => restored.into(),
            };
            return Poll::Ready(Ok(News::Whole(head, body)));
        }
        if let Some(unmasking) = &mut self.unmasking
            && let Some(next) = unmasking.peek()
        {
            if !may && next.kind != Kind::Error {
                state.wait(cx);
                self.waits = Some(cx.waker().clone());
                return Poll::Ready(Ok(News::Held));
            }
            if let Some(ready) = unmasking.next() {
                show(&ready.shown(), state.journal.cursor(ready.seq));
            }
            return Poll::Ready(Ok(News::Event));
        }
        if let (false, Some(head)) = (self.head_seen, &state.head) {
            self.head_seen = true;
            return Poll::Ready(Ok(News::Head(head.clone())));
        }
        if state.withholds(self.place + 1) {
            state.wait(cx);
            self.waits = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let (place, heard) = (self.place, self.segment);
        let recovered = state.recovered.iter().find(|(seq, _, segment)| *seq <= place && *segment > heard);
        // Not between the halves of a token: what is held back belongs to the events before.
        let holds = self.unmasking.as_ref().is_some_and(|unmasking| unmasking.holds());
        if let Some((_, how, segment)) = recovered.copied()
            && state.journal.last() > place
            && !holds
        {
            self.segment = segment;
            return Poll::Ready(Ok(News::Recovered(how, segment)));
        }
        let behind = state.journal.last().saturating_sub(self.place);
        // What is told between two events stands between them for whoever lags, too.
        let border = state.recovered.iter().map(|(seq, ..)| *seq).find(|seq| *seq > place);
        let shape = match border {
            _ if behind < LAG_MERGED => Shape::AsItCame,
            Some(border) => Shape::MergedTo(border),
            None => Shape::Merged,
        };
        match state.journal.next(self.place, shape).map_err(missed)? {
            Next::Done(end) => return Poll::Ready(Ok(News::Ended(end))),
            Next::Item(item) if !may && item.kind != Kind::Error => {
                // Woken all the same: what it may not be shown yet may be gone before it may.
                state.wait(cx);
                self.waits = Some(cx.waker().clone());
                return Poll::Ready(Ok(News::Held));
            }
            Next::Item(item) => {
                if !std::mem::replace(&mut self.asked, true) {
                    let live = self.hosted.live();
                    self.unmasking = live.map(|live| Box::new(Unmasking::new(live, before(state, place))));
                }
                self.place = item.seq;
                match &mut self.unmasking {
                    None => show(&Shown::item(&item), state.journal.cursor(item.seq)),
                    Some(unmasking) => {
                        unmasking.take(&item);
                        if let Some(ready) = unmasking.next() {
                            show(&ready.shown(), state.journal.cursor(ready.seq));
                        }
                    }
                }
            }
            Next::Wait => {
                state.wait(cx);
                self.waits = Some(cx.waker().clone());
                return Poll::Pending;
            }
        }
        if self.hosted.class == Resume::Off {
            // It has no other reader and no past.
            state.journal.forget(self.place);
            state.weigh();
        }
        Poll::Ready(Ok(News::Event))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.hosted.reader_goes(self.waits.as_ref());
    }
}

/// The two events before a place, as far as they are there.
fn before(state: &State, place: u64) -> impl Iterator<Item = Item<'_>> {
    (place.saturating_sub(2)..place).filter_map(|seq| match state.journal.next(seq, Shape::AsItCame) {
        Ok(Next::Item(item)) => Some(item),
        _ => None,
    })
}

fn missed(missed: Missed) -> StreamTrouble {
    match missed {
        Missed::Gone => StreamTrouble::Gone,
        Missed::Beyond | Missed::OtherStream | Missed::OtherEpoch => StreamTrouble::BadCursor,
    }
}
