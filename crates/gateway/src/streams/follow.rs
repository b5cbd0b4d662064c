//! A client over HTTP reads a hosted stream: the one that asked for it, or one that comes back.
//!
//! Each event has an `id:` line, the cursor after it, which `?after=` and `Last-Event-ID` take. What
//! the client does not read stays in the log and is joined there; nothing of it is held here.

use super::reader::{News, Reader};
use super::{Owner, StreamTrouble, find};
use crate::answer::Trouble;
use crate::attempt::Stop;
use crate::house::House;
use crate::identify::Caller;
use crate::mending::comment;
use crate::query::Query;
use crate::reply::{Interrupt, Reply};
use crate::settle::End;
use std::future::poll_fn;
use std::io::Write;
use std::task::Poll;
use tidegate_base::{Moment, StreamId};
use tidegate_journal::Cursor;
use tidegate_wire::http::RequestHead;

/// Where these doors are.
pub(crate) const PREFIX: &str = "/v1/streams/";

/// Answers `GET` and `DELETE` of a stream.
pub(crate) async fn serve(
    house: &House,
    reply: &mut Reply<'_>,
    head: &RequestHead,
    caller: &Caller,
) -> Result<End, Stop> {
    let id = head.path().strip_prefix(PREFIX).and_then(StreamId::parse);
    let id = id.ok_or(Trouble::from(StreamTrouble::Unknown))?;
    let owner = Owner { tenant: caller.tenant.name.clone(), own: caller.own };
    if head.method() == "DELETE" {
        let ran = match reply.attend(find(house, id, &owner)).await? {
            Ok(hosted) => hosted.call_off(),
            // Where it runs it can be called off, if not read.
            Err(Trouble::Stream(StreamTrouble::Elsewhere)) => {
                let called_off = reply.attend(house.memory.succession.calls_off(house.clock, id, &owner)).await?;
                called_off.map_err(|_| Trouble::Stream(StreamTrouble::Elsewhere))?
            }
            Err(trouble) => return Err(trouble.into()),
        };
        let what = if ran { "stream_cancelled" } else { "stream_ended" };
        let told = format!("{{\"id\":\"{id}\",\"type\":\"{what}\"}}");
        reply.whole_of_ours(told.as_bytes());
        return Ok(End::Answered);
    }
    let after = cursor(head)?;
    let hosted = reply.attend(find(house, id, &owner)).await??;
    let reader = Reader::at(hosted, after.as_ref()).map_err(Trouble::from)?;
    reply.streams = true;
    follow(house, reply, reader).await
}

/// The cursor a client comes with: `?after=`, or the header that browsers send by themselves.
fn cursor(head: &RequestHead) -> Result<Option<Cursor>, Trouble> {
    let query = Query::read(head.query(), &["after"])?;
    let after = query.text("after").or_else(|| head.headers.text("last-event-id"));
    let Some(after) = after.filter(|text| !text.is_empty()) else { return Ok(None) };
    Cursor::parse(after).map(Some).ok_or(StreamTrouble::BadCursor.into())
}

/// Gives the client what `reader` reads, to its end.
pub(super) async fn follow(house: &House, reply: &mut Reply<'_>, mut reader: Reader) -> Result<End, Stop> {
    let hosted = reader.hosted();
    reply.answers(hosted.request, hosted.stream);
    if reply.live().follows(hosted.stream) {
        house.metrics.stream(-1);
    }
    loop {
        match next(house, reply, &mut reader).await? {
            Ok(News::Head(head)) => reply.begin_as(&head),
            Ok(News::Whole(head, body)) => {
                reply.whole_as(&head, &body);
                return Ok(End::Said);
            }
            Ok(News::Recovered(how, segment)) => reply.push_event(comment(how, segment).as_bytes(), house.clock.now()),
            Ok(News::Event | News::Held) => {}
            Ok(News::Ended(_)) => return Ok(End::Answered),
            Err(trouble) => return Err(Trouble::from(trouble).into()),
        }
    }
}

/// Reads on until there is something to be done, as far as the client takes it.
async fn next(
    house: &House,
    reply: &mut Reply<'_>,
    reader: &mut Reader,
) -> Result<Result<News, StreamTrouble>, Interrupt> {
    let mut event = Vec::new();
    poll_fn(|cx| {
        let now = house.clock.now();
        while !reply.wants_flush() {
            let read = reader.poll_next(cx, true, &mut |item, cursor| {
                event.clear();
                // Writing to memory cannot fail.
                let _ = writeln!(event, "id: {cursor}");
                item.write_event(&mut event);
                reply.push_event(&event, now);
            });
            match read {
                Poll::Ready(Ok(News::Event)) => {}
                Poll::Ready(news) => return Poll::Ready(Ok(news)),
                Poll::Pending => return watch(reply, cx, now),
            }
        }
        let watched = watch(reply, cx, now);
        if watched.is_pending() && !reply.wants_flush() {
            cx.waker().wake_by_ref();
        }
        watched
    })
    .await
}

fn watch<T>(reply: &mut Reply<'_>, cx: &mut std::task::Context<'_>, now: Moment) -> Poll<Result<T, Interrupt>> {
    reply.poll_watch(cx, now, Moment::NEVER, true).map(Err)
}
