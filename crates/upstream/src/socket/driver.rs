//! The task that owns a socket to an upstream.
//!
//! Each time it is woken it writes what lies on the desk, lets the socket move its bytes, and puts
//! what came into the inboxes. A socket that takes no new streams and has none left is closed.

use super::inbox::{Fate, Inbox};
use super::link::{Ask, Shared};
use super::many::Many;
use super::single::Single;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use tidegate_base::Moment;
use tidegate_transport::websocket::{Message, Over, Socket};
use tidegate_transport::{Clock, SocketEnd, TaskKind};
use tidegate_wire::websocket::CloseCode;

/// Unwritten bytes past which the next request waits on the desk: cancels should not have to wait
/// behind more than one.
const AHEAD_BYTES: usize = 64 * 1024;
/// Unread bytes of a prompt's answer past which its socket is not read.
const UNREAD_MAX: u64 = 256 * 1024;

pub(super) const DRIVER: TaskKind = TaskKind {
    name: "upstream socket",
    on_cancel: "the socket closes when its last stream has ended, or 5 s after it if the peer does not agree",
    on_error: "its streams fail and are tried again elsewhere; the pool forgets it",
};

/// What is spoken.
pub(super) enum Dialect {
    Many(Many),
    Single(Single),
}

/// Drives one socket to its end.
pub(super) struct Driver {
    socket: Socket,
    shared: Arc<Shared>,
    dialect: Dialect,
    clock: Clock,
    /// Requests under way to the connection, and what it will have taken when they are.
    sending: VecDeque<(u64, u64, Arc<Inbox>)>,
    taken: u64,
}

impl Driver {
    pub(super) fn new(socket: Socket, shared: Arc<Shared>, dialect: Dialect, clock: Clock) -> Self {
        Driver { socket, shared, dialect, clock, sending: VecDeque::new(), taken: 0 }
    }

    /// Runs until the socket is over; `changed` is told that it takes no new streams, and then
    /// that it is gone.
    pub(super) async fn run(mut self, changed: impl Fn(bool)) {
        let mut was_open = true;
        let over = poll_fn(|cx| {
            let polled = self.poll(cx);
            if was_open && !self.shared.is_open() {
                was_open = false;
                changed(false);
            }
            polled
        })
        .await;
        let end = match &over {
            Over::Closed(code) => SocketEnd::Closed(code.map(CloseCode::number)),
            Over::Violation(_) => SocketEnd::Broken("broke the rules of the protocol"),
            Over::Dead => SocketEnd::Dead,
            Over::Cut | Over::Broken(_) => SocketEnd::Cut,
        };
        let sending = std::mem::take(&mut self.sending);
        self.shared.gone(|key, inbox| {
            let half_sent = sending.iter().any(|(under_way, _, _)| *under_way == key);
            // Who goes away has told every stream that it took up how it ended.
            let refused = end == SocketEnd::Closed(Some(CloseCode::GOING_AWAY.number())) && !inbox.was_heard();
            if half_sent || refused { Fate::Unsent } else { Fate::Over(end) }
        });
        changed(true);
        self.socket.end(&over).await;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Over> {
        for _ in 0..2 {
            self.obey(cx);
            let now = self.clock.now();
            let (mut heard, mut wrong) = (false, None);
            let (shared, dialect) = (&self.shared, &mut self.dialect);
            let reads = !matches!(dialect, Dialect::Single(single) if single.unread() > UNREAD_MAX);
            let over = self.socket.poll(cx, reads, Moment::NEVER, &mut |message| {
                heard = true;
                if wrong.is_none() {
                    wrong = hear(dialect, shared, &message, now).err();
                }
            });
            self.look_what_went_out(now);
            if over.is_ready() {
                return over;
            }
            if let Some(why) = wrong {
                // Nothing it says can be believed any more.
                self.shared.gone(|_, _| Fate::Over(SocketEnd::Broken(why)));
                self.socket.close(CloseCode::POLICY, why);
            } else if !heard {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes what lies on the desk.
    fn obey(&mut self, cx: &Context<'_>) {
        let mut desk = self.shared.desk_of_driver(cx);
        let (cancels, grants) = (std::mem::take(&mut desk.cancels), std::mem::take(&mut desk.grants));
        let abandoned = desk.abandoned;
        drop(desk);
        if !self.socket.is_open() {
            return;
        }
        if let Dialect::Many(many) = &mut self.dialect {
            cancels.into_iter().for_each(|key| many.cancel(&mut self.socket, key));
            grants.into_iter().for_each(|(key, bytes)| many.grant(&mut self.socket, key, bytes));
        }
        if abandoned {
            return self.socket.close(CloseCode::GOING_AWAY, "nobody waits for the answer any more");
        }
        while self.socket.unwritten() < AHEAD_BYTES {
            let mut desk = self.shared.desk();
            let Some((key, ask)) = desk.asks.pop_front() else { break };
            let Some(inbox) = desk.inboxes.get(&key).cloned() else { continue };
            drop(desk);
            self.ask(key, &ask, &inbox);
            let position = self.socket.taken() + self.socket.unwritten() as u64;
            self.sending.push_back((key, position, inbox));
        }
        if self.shared.is_over() {
            self.socket.close(CloseCode::NORMAL, "");
        }
    }

    fn ask(&mut self, key: u64, ask: &Ask, inbox: &Arc<Inbox>) {
        match (&mut self.dialect, ask) {
            (Dialect::Many(many), Ask::Create { body, headers }) => many.create(&mut self.socket, key, body, headers),
            (Dialect::Single(single), Ask::Prompt { text, model }) => {
                single.begin(key, model, inbox);
                self.socket.send(text);
            }
            // A lane speaks one dialect; what it is asked is made for that.
            _ => self.shared.ended(key, Fate::Over(SocketEnd::Broken("speaks another dialect"))),
        }
    }

    fn look_what_went_out(&mut self, now: Moment) {
        let taken = self.socket.taken();
        if taken != self.taken {
            self.taken = taken;
            self.shared.progressed(now);
        }
        while self.sending.front().is_some_and(|(_, position, _)| *position <= taken) {
            if let Some((_, _, inbox)) = self.sending.pop_front() {
                inbox.sent();
            }
        }
    }
}

fn hear(dialect: &mut Dialect, shared: &Shared, message: &Message<'_>, now: Moment) -> Result<(), &'static str> {
    let Message::Text(text) = message else { return Err("sent a message that is no text") };
    match dialect {
        Dialect::Many(many) => many.hear(shared, text, now),
        Dialect::Single(single) => single.hear(shared, text),
    }
}
