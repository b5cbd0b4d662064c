//! A request becomes a hosted stream: its owner task, and its first reader.

use super::follow::follow;
use super::hosted::{About, Hosted, Owner};
use super::inlet::Inlet;
use super::keep::{KEEPER, keep};
use super::reader::Reader;
use super::{StreamTrouble, not_so};
use crate::answer::Trouble;
use crate::attempt::Stop;
use crate::connection::Peer;
use crate::decode::Body;
use crate::door::Door;
use crate::house::House;
use crate::identify::Caller;
use crate::memory;
use crate::path;
use crate::plane::Plane;
use crate::reply::Reply;
use crate::settle::{Account, End};
use std::sync::Arc;
use tidegate_transport::{ServerStream, TaskKind, local};
use tidegate_wire::dialect::words::Resume;
use tidegate_wire::http::RequestHead;

/// Who owns a hosted stream.
const OWNER: TaskKind = TaskKind {
    name: "stream owner",
    on_cancel: "its upstream exchange is closed, its leases go back, its readers are told",
    on_error: "its readers are told that it was called off",
};

/// What is to be hosted.
pub(crate) struct Hosting {
    pub(crate) head: RequestHead,
    pub(crate) door: &'static Door,
    pub(crate) peer: Peer,
    pub(crate) body: Body,
    pub(crate) owner: Owner,
    pub(crate) class: Resume,
}

/// Begins a stream, and reads it from its beginning.
pub(crate) fn host(plane: &Arc<Plane>, hosting: Hosting) -> Result<Reader, Trouble> {
    let house = &plane.house;
    if hosting.class == Resume::Durable && house.memory.store().is_err() {
        return Err(not_so("`off` or `memory`: durable streams need a conversation log, and none is configured"));
    }
    if hosting.class == Resume::Durable && house.streams.log_is_full(house.clock.now()) {
        return Err(StreamTrouble::LogBudget.into());
    }
    let permit = Arc::clone(&house.stream_permits).try_acquire_owned().map_err(|_| Trouble::StreamLimit)?;
    let Hosting { head, door, peer, body, owner, class } = hosting;
    let ids = plane.new_ids();
    let limits = &house.settings.limits;
    let (budget, bytes) = match class {
        Resume::Off => (&house.backlogs, limits.backlog_bytes),
        Resume::Memory | Resume::Durable => (&house.streams.journals, limits.journal_bytes),
    };
    while class != Resume::Off && budget.used() > budget.limit() / 5 * 4 {
        if !house.streams.make_room() {
            return Err(StreamTrouble::Budget.into());
        }
    }
    let about = if class == Resume::Off { About::default() } else { about(house, &owner, &head, &body) };
    let hosted = Arc::new(Hosted::new(ids, owner, about, class, (bytes, budget.empty_lease())));
    if class != Resume::Off {
        house.streams.add(&hosted);
    }
    let reader = Reader::at(Arc::clone(&hosted), None)?;
    if class == Resume::Durable {
        plane.thread.tasks.spawn(&KEEPER, keep(Arc::clone(plane), Arc::clone(&hosted)));
    }
    let inlet = Inlet::new(Arc::clone(&hosted), house.clock, house.settings.clocks.detach_grace);
    let load = plane.count_stream();
    let on = Arc::clone(plane);
    plane.thread.tasks.spawn(&OWNER, async move {
        let (_load, _permit) = (load, permit);
        let stream = local::ServerStream::new(body.bytes, body.lease, Box::new(inlet));
        let mut conn = ServerStream::Local(Box::new(stream));
        path::serve(&on, &mut conn, &head, door, &peer, path::Named { ids, hosted: Some(hosted) }).await;
    });
    Ok(reader)
}

fn about(house: &House, owner: &Owner, head: &RequestHead, body: &Body) -> About {
    // Its request is checked on the path; what cannot be a conversation's name is refused there.
    let conversation = head.headers.text("tidegate-conversation").map(str::to_owned);
    // As the log is to know it: what is masked is masked here too, and what the filter refuses is not
    // kept at all. Its request is refused on the path.
    let masked = |user: String| match house.settings.redaction.end_user(&owner.tenant, &user) {
        Ok(masked) => Some(masked.unwrap_or(user)),
        Err(_) => None,
    };
    About { end_user: memory::end_user(&body.bytes).and_then(masked), conversation }
}

/// The path's branch for a request that wants to be able to come back: hosts it, and gives the
/// client that asked its answer.
pub(crate) async fn begin(
    plane: &Arc<Plane>,
    reply: &mut Reply<'_>,
    asked: Asked<'_>,
    body: Body,
    account: &mut Account,
) -> Result<End, Stop> {
    let house: &House = &plane.house;
    if !account.stream {
        let name = "tidegate-resume".to_owned();
        return Err(Trouble::Header { name, expected: "to be left out of a request without `stream: true`" }.into());
    }
    let Asked { head, door, caller, peer } = asked;
    let owner = Owner { tenant: Arc::clone(&caller.tenant.name), own: caller.own };
    let (head, peer) = (head.clone(), peer.clone());
    let reader = host(plane, Hosting { head, door, peer, body, owner, class: caller.resume })?;
    account.hosted = true;
    follow(house, reply, reader).await
}

/// Who asks for what.
pub(crate) struct Asked<'a> {
    pub(crate) head: &'a RequestHead,
    pub(crate) door: &'static Door,
    pub(crate) caller: &'a Caller,
    pub(crate) peer: &'a Peer,
}
