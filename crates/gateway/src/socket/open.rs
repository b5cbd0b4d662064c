//! The handshake: who opens a socket, from what page, to speak which dialect. What is wrong is told
//! with its true status, since nothing was upgraded yet.

use super::tickets::Pass;
use crate::answer::Trouble;
use crate::connection::Peer;
use crate::door::{After, refuse};
use crate::identify::identify;
use crate::plane::Plane;
use crate::query::Query;
use crate::reply::own_lines;
use crate::streams::Owner;
use bytes::BytesMut;
use std::sync::Arc;
use tidegate_transport::ServerStream;
use tidegate_wire::dialect::tidegate_v1::SUBPROTOCOL;
use tidegate_wire::http::{HeadWriter, RequestHead, parse_request};
use tidegate_wire::websocket::handshake::{self, Origins, ServerRules};

/// The dialects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spoken {
    Many,
    Simple { once: bool },
    Echo,
}

/// What is known of a socket from its handshake.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(super) spoken: Spoken,
    /// What each of its requests is asked with.
    pub(super) pass: Pass,
    pub(super) owner: Owner,
}

/// Opens a socket, or says why not.
pub(crate) async fn open(plane: &Arc<Plane>, conn: &mut ServerStream, head: &RequestHead, peer: &Peer) -> After {
    let house = &*plane.house;
    let (opened, answer) = match judge(plane, head, peer) {
        Ok(judged) => judged,
        Err(trouble) => return refuse(plane, conn, &trouble).await,
    };
    conn.push_raw(&answer);
    match house.clock.within(house.settings.clocks.client_write_stall, conn.flush()).await {
        Some(Ok(())) => After::Socket(Box::new(opened)),
        _ => After::Abort,
    }
}

fn judge(plane: &Plane, head: &RequestHead, peer: &Peer) -> Result<(Opened, BytesMut), Trouble> {
    let house = &*plane.house;
    let settings = &house.settings.sockets;
    let known: &[&str] = if settings.echo { &["ticket", "once", "echo"] } else { &["ticket", "once"] };
    let query = Query::read(head.query(), known)?;
    let ticket = query.text("ticket");
    // Whoever gave the page a ticket has judged the page.
    let origins = if ticket.is_some() { Origins::Any } else { Origins::Listed(&settings.origins) };
    let rules = ServerRules { subprotocols: &[SUBPROTOCOL], origins };
    let accepted = handshake::accept(head, &rules).map_err(Trouble::Handshake)?;
    if house.is_leaving() {
        return Err(Trouble::Draining);
    }
    let now = house.clock.now();
    let pass = match ticket {
        Some(ticket) => house.tickets.take(ticket, now).ok_or(Trouble::Ticket)?,
        None => Pass::of(head, peer),
    };
    // A page's origin was judged above, and by the rule for whoever needs no key here.
    let origin = if ticket.is_none() { head.headers.text("origin") } else { None };
    let asked = request(&pass, origin.map(|o| ("origin", o)))?;
    let caller = identify(&house.keys, &asked, &pass.peer, now, house.memory.now_ms())?;
    let once = query.switch("once")?;
    let spoken = match accepted.subprotocol {
        Some(_) => Spoken::Many,
        None if query.flag("echo")? => Spoken::Echo,
        None => Spoken::Simple { once },
    };
    let mut answer = BytesMut::new();
    let (id, _) = plane.new_ids();
    let mut lines = handshake::answer(&mut answer, &accepted);
    own_lines(&mut lines, id, None);
    lines.end();
    let owner = Owner { tenant: Arc::clone(&caller.tenant.name), own: caller.own };
    Ok((Opened { spoken, pass, owner }, answer))
}

/// Whether whoever opened a socket may still ask, by the keys of now.
pub(super) fn is_welcome(plane: &Arc<Plane>, opened: &Opened) -> Result<(), Trouble> {
    let house = &plane.now().house;
    let asked = request(&opened.pass, None)?;
    identify(&house.keys, &asked, &opened.pass.peer, house.clock.now(), house.memory.now_ms()).map(drop)
}

/// The head of a request that whoever has `pass` makes, with `more` lines.
pub(super) fn request<'l>(
    pass: &Pass,
    more: impl IntoIterator<Item = (&'l str, &'l str)>,
) -> Result<RequestHead, Trouble> {
    let mut text = BytesMut::new();
    let mut lines = HeadWriter::request(&mut text, "POST", "/v1/messages");
    lines.header("host", b"tidegate");
    lines.header("content-type", b"application/json");
    for (name, value) in &pass.lines {
        lines.header(name, value.expose().as_bytes());
    }
    for (name, value) in more {
        lines.header(name, value.as_bytes());
    }
    lines.end();
    parse_request(&mut text).map_err(Trouble::Head)?.ok_or(Trouble::HeadSlow)
}
