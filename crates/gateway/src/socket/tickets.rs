//! Tickets: a page in a browser cannot send a credential with its handshake, so the service behind it
//! asks for a ticket with its own, and the page opens one socket with that, once, soon.

use crate::answer::Trouble;
use crate::attempt::Stop;
use crate::connection::Peer;
use crate::house::House;
use crate::reply::Reply;
use crate::settle::End;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tidegate_base::{Moment, Secret};
use tidegate_wire::http::RequestHead;

/// How long a ticket opens a socket: a page has just been told it.
pub(crate) const GOOD_FOR: Duration = Duration::from_secs(30);
/// Tickets that are good at once.
const TICKETS_MAX: usize = 65_536;
/// The headers that say who asks.
pub(super) const CREDENTIALS: [&str; 2] = ["x-api-key", "authorization"];

/// The credential of whoever asked.
#[derive(Clone, Debug)]
pub(crate) struct Pass {
    pub(super) lines: Vec<(&'static str, Secret)>,
    pub(super) peer: Peer,
}

impl Pass {
    /// What a request brings.
    pub(super) fn of(head: &RequestHead, peer: &Peer) -> Self {
        let line = |name: &'static str| Some((name, Secret::new(head.headers.text(name)?)));
        Pass { lines: CREDENTIALS.into_iter().filter_map(line).collect(), peer: peer.clone() }
    }
}

#[derive(Default)]
struct Table {
    by_hash: BTreeMap<[u8; 32], (Moment, Pass)>,
    /// In the order they end.
    made: u64,
}

/// Every ticket that is still good. What is kept of a ticket is its hash.
#[derive(Default)]
pub(crate) struct Tickets {
    table: Mutex<Table>,
}

impl Tickets {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new ticket; `None` if there are too many.
    fn make(&self, secret: [u64; 2], now: Moment, pass: Pass) -> Option<String> {
        let mut table = self.table();
        table.by_hash.retain(|_, (until, _)| *until > now);
        if table.by_hash.len() >= TICKETS_MAX {
            return None;
        }
        table.made += 1;
        let mut hash = Sha256::new();
        hash.update(b"tidegate ticket");
        hash.update(secret[0].to_be_bytes());
        hash.update(secret[1].to_be_bytes());
        hash.update(table.made.to_be_bytes());
        let bytes = hash.finalize();
        // 160 of its bits, five to a character.
        let ticket = format!("tkt_{}", base32(&bytes[..20]));
        table.by_hash.insert(Sha256::digest(ticket.as_bytes()).into(), (now + GOOD_FOR, pass));
        Some(ticket)
    }

    /// Whose it is; a ticket opens once.
    pub(super) fn take(&self, ticket: &str, now: Moment) -> Option<Pass> {
        let hash: [u8; 32] = Sha256::digest(ticket.as_bytes()).into();
        let (until, pass) = self.table().by_hash.remove(&hash)?;
        (until > now).then_some(pass)
    }
}

fn base32(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
    let (mut out, mut bits, mut held) = (String::new(), 0u32, 0);
    for byte in bytes {
        bits = bits << 8 | u32::from(*byte);
        held += 8;
        while held >= 5 {
            held -= 5;
            out.push(char::from(ALPHABET[(bits >> held & 31) as usize]));
        }
    }
    out
}

/// Answers `POST /v1/stream/ticket`.
pub(crate) fn issue(house: &House, reply: &mut Reply<'_>, head: &RequestHead, peer: &Peer) -> Result<End, Stop> {
    let ticket = house.tickets.make(house.hash_key, house.clock.now(), Pass::of(head, peer));
    let ticket = ticket.ok_or(Trouble::StreamLimit)?;
    let told = format!("{{\"ticket\":\"{ticket}\",\"expires_in_ms\":{}}}", GOOD_FOR.as_millis());
    reply.whole_of_ours(told.as_bytes());
    Ok(End::Answered)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_opens_once_and_not_for_long() {
        let tickets = Tickets::default();
        let pass = || Pass { lines: vec![("x-api-key", Secret::new("k"))], peer: Peer::Elsewhere };
        let make = |now| tickets.make([1, 2], now, pass()).unwrap();
        let (first, second) = (make(Moment::ZERO), make(Moment::ZERO));
        assert!(first != second && first.len() == 36 && first.starts_with("tkt_"), "{first}");
        assert_eq!(tickets.take(&first, Moment::ZERO).unwrap().lines[0].1.expose(), "k");
        assert!(tickets.take(&first, Moment::ZERO).is_none(), "it was used");
        assert!(tickets.take("tkt_", Moment::ZERO).is_none());
        assert!(tickets.take(&second, Moment::ZERO + GOOD_FOR).is_none(), "it is too old");
    }

    #[test]
    fn there_are_only_so_many() {
        let tickets = Tickets::default();
        let pass = Pass { lines: Vec::new(), peer: Peer::Here };
        let made = (0..=TICKETS_MAX).filter(|_| tickets.make([1, 2], Moment::ZERO, pass.clone()).is_some()).count();
        assert_eq!(made, TICKETS_MAX);
        assert!(tickets.make([1, 2], Moment::ZERO + GOOD_FOR, pass).is_some(), "old ones make room");
    }
}
