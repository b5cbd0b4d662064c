//! What the client is told on a socket of many streams: each stream's news, one thing in its turn.
//!
//! Nothing is written ahead of what the client takes: what is behind stays in the logs, where it is
//! joined.

use super::Many;
use super::ending::told_headers;
use crate::answer::answer;
use crate::house::House;
use crate::streams::{News, StreamTrouble};
use std::borrow::Cow;
use std::sync::PoisonError;
use std::task::{Context, Poll};
use std::time::Duration;
use tidegate_base::Moment;
use tidegate_journal::End;
use tidegate_transport::websocket::Socket;
use tidegate_wire::dialect::tidegate_v1::{EndReason, EventPlace, ServerFrame, write_event};
use tidegate_wire::event::Kind;

/// Unwritten bytes past which no more events are written: what is behind stays in the logs, where it
/// is joined.
const AHEAD_BYTES: usize = 64 * 1024;
/// How often a waiting stream is told how far it is.
const WAIT_EVERY: Duration = Duration::from_secs(1);

impl Many {
    /// Writes what there is; when it is to be asked again, and whether there was more than had room.
    pub(in super::super) fn speak(
        &mut self,
        house: &House,
        cx: &mut Context<'_>,
        socket: &mut Socket,
        now: Moment,
    ) -> (Moment, bool) {
        self.come(cx);
        self.look(house, cx);
        let due = self.tell_waits(house, now);
        loop {
            for frame in self.first.drain(..) {
                socket.send(&frame);
            }
            if let Some((code, reason)) = self.close {
                socket.close(code, reason);
                return (Moment::NEVER, false);
            }
            if socket.unwritten() >= AHEAD_BYTES {
                return (due, true);
            }
            let Some(key) = self.turns.turn() else { return (due, false) };
            self.step(key, socket);
        }
    }

    /// Streams whose logs have something new.
    fn come(&mut self, cx: &Context<'_>) {
        let mut keys = self.ready.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if !keys.1.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
            keys.1 = Some(cx.waker().clone());
        }
        for key in std::mem::take(&mut keys.0) {
            if self.streams.contains_key(&key) {
                self.turns.ready(key);
            }
        }
    }

    /// Streams of which the log has told whether it has them.
    fn look(&mut self, house: &House, cx: &mut Context<'_>) {
        for mut sought in std::mem::take(&mut self.sought) {
            match sought.found.as_mut().poll(cx) {
                Poll::Pending => self.sought.push(sought),
                Poll::Ready(Ok(reader)) => self.add(house, &sought.id, reader, sought.credit, true),
                Poll::Ready(Err(trouble)) => self.refuse(Some(&sought.id), &answer(&trouble)),
            }
        }
    }

    /// One thing of the stream whose turn it is.
    fn step(&mut self, key: u32, socket: &mut Socket) {
        let Some(entry) = self.streams.get_mut(&key) else { return self.turns.remove(key) };
        let (mut error, mut written, mut seq) = (None, 0, entry.seq);
        let (id, resumable) = (&*entry.id, entry.resumable);
        let mask = socket.mask();
        let polled =
            entry.reader.poll_next(&Context::from_waker(&entry.waker), entry.credit.may_send(), &mut |item, cursor| {
                let data = item.data();
                // An error is told as the stream's end, and has no number there.
                if item.kind == Kind::Error {
                    error = Some(data.into_owned());
                    return;
                }
                seq = item.seq;
                let cursor = resumable.then(|| cursor.to_string());
                let place = EventPlace { id, first_seq: item.first_seq, seq, cursor: cursor.as_deref() };
                write_event(socket.out(), &place, &data, mask);
                written += data.len();
            });
        entry.seq = seq;
        match polled {
            // Whoever called it off does not want what it has no credit for.
            Poll::Ready(Ok(News::Held)) if entry.cancelled => self.cancelled(key),
            Poll::Pending | Poll::Ready(Ok(News::Held)) => self.turns.idle(key),
            Poll::Ready(Ok(News::Event)) => match error {
                Some(data) => self.ended_by(key, &data),
                None => {
                    entry.credit.spend(written);
                    self.turns.wrote(key, written);
                }
            },
            Poll::Ready(Ok(News::Head(head))) => {
                entry.open = true;
                let stream = resumable.then(|| entry.reader.hosted().stream.to_string());
                let mut text = Vec::new();
                let headers = told_headers(&head);
                ServerFrame::Open { id: (&*entry.id).into(), stream: stream.map(Cow::Owned), headers }.write(&mut text);
                socket.send(&text);
            }
            Poll::Ready(Ok(News::Recovered(how, segment))) => {
                let mut text = Vec::new();
                ServerFrame::Recovered { id: (&*entry.id).into(), seq, how, segment }.write(&mut text);
                socket.send(&text);
            }
            Poll::Ready(Ok(News::Whole(head, body))) => self.refused(key, &head, &body),
            Poll::Ready(Ok(News::Ended(End::Stopped))) => {
                let id = Cow::Owned(entry.id.to_string());
                self.over(key, &ServerFrame::End { id, seq, reason: EndReason::Stop });
            }
            // Whoever comes with the cursor of the error itself, which SSE gives out, is told it.
            Poll::Ready(Ok(News::Ended(_))) => {
                let data = entry.reader.last_error().unwrap_or_default();
                self.ended_by(key, &data);
            }
            Poll::Ready(Err(trouble)) => {
                // A plain stream whose log let go of what was not read has a reader that is too slow.
                let slow = trouble == StreamTrouble::Gone && !resumable;
                let trouble = if slow { StreamTrouble::SlowReader } else { trouble };
                let row = answer(&trouble.into());
                self.fail(key, &row, None);
            }
        }
    }

    /// Tells those that wait for quota how far they are; when the next is to be told.
    fn tell_waits(&mut self, house: &House, now: Moment) -> Moment {
        let mut due = Moment::NEVER;
        if now < self.tell_at {
            return self.tell_at;
        }
        let mut told = Vec::new();
        for entry in self.streams.values_mut().filter(|entry| !entry.open) {
            if now >= entry.tell_at {
                entry.tell_at = now + WAIT_EVERY;
                let wait = house.admission.wait_of(entry.reader.hosted().stream, now);
                let place = wait.map(|wait| (wait.ahead as u64, wait.expected.map(|span| span.as_millis() as u64)));
                if place.is_some() && place != entry.told {
                    entry.told = place;
                    told.push((entry.id.clone(), place));
                }
            }
            due = due.min(entry.tell_at);
        }
        self.tell_at = due;
        for (id, place) in told {
            let (position, expected_ms) = (place.map(|p| p.0), place.and_then(|p| p.1));
            self.say(&ServerFrame::Wait { id: Cow::Borrowed(&id), position, expected_ms });
        }
        due
    }
}
