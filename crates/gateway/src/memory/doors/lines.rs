//! The lines of export and import where conversations are masked: restored for whoever carries them
//! away, masked again when they come.
//!
//! What comes and is in the log already, as its owner was shown it, is taken from the log: so the same
//! export can be imported twice, and what the model said of itself stays what it said. Everything else is
//! masked like a turn, line by line, and each line brings what it told.

use crate::answer::Trouble;
use crate::attempt::Stop;
use crate::house::House;
use crate::memory::masking::{self, live_of};
use crate::memory::{TurnTrouble, talk::Talk};
use crate::redaction::shown;
use crate::reply::Reply;
use bytes::Bytes;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use tidegate_redact::mask::{Filter, Refusal};
use tidegate_redact::restore::Live;
use tidegate_store::{Address, Lines, StoreError, Turn, VaultRecords};
use tidegate_wire::raw::RawObject;

/// Members that hold JSON, and the names they have where it stands in a string.
const PARTS: [(&str, &str); 3] = [("request", "request_text"), ("answer", "answer_text"), ("body", "body_text")];

/// What stands in a line, where, and whether it is the text of a JSON string.
type Part = (Vec<u8>, Range<usize>, bool);

/// A line's JSON as it is in the log, and where it stands in the line.
fn part(line: &[u8], object: &RawObject<'_>, names: (&str, &str)) -> Option<Part> {
    if let Some(at) = object.place(names.0, line) {
        return Some((line[at.clone()].to_vec(), at, false));
    }
    let text: String = object.parse(names.1)?;
    Some((text.into_bytes(), object.place(names.1, line)?, true))
}

/// The line with other JSON in some of its places.
fn with(line: &[u8], mut parts: Vec<Part>) -> Vec<u8> {
    parts.sort_by_key(|(_, at, _)| at.start);
    let (mut out, mut from) = (Vec::with_capacity(line.len() + 64), 0);
    for (json, at, in_a_string) in parts {
        out.extend_from_slice(&line[from..at.start]);
        match in_a_string {
            true => out.extend_from_slice(&serde_json::to_vec(&*String::from_utf8_lossy(&json)).unwrap_or_default()),
            false => out.extend_from_slice(&json),
        }
        from = at.end;
    }
    out.extend_from_slice(&line[from..]);
    out
}

/// Restores the lines of an export; remembers the conversation it is at.
#[derive(Default)]
pub(super) struct Restoring {
    at: Option<(String, Live)>,
}

impl Restoring {
    /// Whole lines as their owner is to read them.
    pub(super) async fn lines<'l>(
        &mut self,
        house: &House,
        tenant: &str,
        lines: &'l [u8],
    ) -> Result<Cow<'l, [u8]>, TurnTrouble> {
        if house.settings.redaction.keys().is_none() {
            return Ok(Cow::Borrowed(lines));
        }
        let mut out = Vec::with_capacity(lines.len());
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            let object = RawObject::read(line).unwrap_or_default();
            if let Some(name) = object.parse::<String>("conversation")
                && self.at.as_ref().is_none_or(|(at, _)| *at != name)
            {
                let live = live_of(house, &Address::new(tenant, &name)?).await?;
                self.at = Some((name, live));
            }
            match &self.at {
                Some((_, live)) if !live.is_empty() => out.extend_from_slice(&restored(live, line, &object)),
                _ => out.extend_from_slice(line),
            }
        }
        Ok(Cow::Owned(out))
    }
}

fn restored(live: &Live, line: &[u8], object: &RawObject<'_>) -> Vec<u8> {
    let parts = PARTS.iter().filter_map(|names| part(line, object, *names));
    let mut parts: Vec<_> = parts.map(|(json, at, text)| (shown(live, &json).into_owned(), at, text)).collect();
    parts.extend(object.place("end_user", line).map(|at| (shown(live, &line[at.clone()]).into_owned(), at, false)));
    with(line, parts)
}

/// Lines of an import that were masked, and what each told.
pub(super) struct Masked {
    pub(super) lines: Vec<u8>,
    told: Vec<(usize, VaultRecords)>,
}

impl Masked {
    /// Gives each line that was read what it told.
    pub(super) fn tell(self, lines: &mut Lines) {
        self.told.into_iter().for_each(|(number, records)| lines.tell(number, records));
    }
}

/// Masks whole lines of an import; `None` where nothing is masked.
pub(super) async fn masked(
    house: &House,
    reply: &mut Reply<'_>,
    tenant: &str,
    lines: &[u8],
) -> Result<Option<Masked>, Stop> {
    let Some(filter) = house.settings.redaction.filter(tenant) else { return Ok(None) };
    let mut talks: BTreeMap<String, Talk> = BTreeMap::new();
    let mut out = Masked { lines: Vec::with_capacity(lines.len()), told: Vec::new() };
    for (line, number) in lines.split_inclusive(|byte| *byte == b'\n').zip(1..) {
        let object = RawObject::read(line).unwrap_or_default();
        // What is no line is told so by whoever reads it next; nothing of it is written.
        let Some(name) = object.parse::<String>("conversation").filter(|_| !object.is("type", "conversation")) else {
            out.lines.extend_from_slice(line);
            continue;
        };
        let address = Address::new(tenant, &name).map_err(|error| Trouble::from(TurnTrouble::from(error)))?;
        if !talks.contains_key(&name) {
            let mut talk = Talk::default();
            reply.attend(masking::load(house, &address, &mut talk)).await?.map_err(Trouble::from)?;
            talks.insert(name.clone(), talk);
        }
        let Some(talk) = talks.get_mut(&name) else { continue };
        let one = One { house, tenant, filter, address, line, object };
        let user = one.end_user().map_err(Trouble::Redacted)?;
        let line = match one.known(&talk.live(), user.clone()).await.map_err(Trouble::from)? {
            Some(line) => line,
            None => one.masked(reply, talk, user).await?,
        };
        out.lines.extend_from_slice(&line);
        if let Some(records) = masking::fresh(house, talk).map_err(Trouble::from)? {
            out.told.push((number, records));
        }
    }
    Ok(Some(out))
}

/// A line of an import, and whose it is.
struct One<'l> {
    house: &'l House,
    tenant: &'l str,
    filter: &'l Arc<Filter>,
    address: Address,
    line: &'l [u8],
    object: RawObject<'l>,
}

impl One<'_> {
    /// The line as the log has it, if this is what the owner was shown of that.
    async fn known(&self, live: &Live, user: Option<Part>) -> Result<Option<Vec<u8>>, TurnTrouble> {
        let (line, object) = (self.line, &self.object);
        let parts: Vec<_> = PARTS.iter().map(|names| part(line, object, *names)).collect();
        let stored: [Option<Vec<u8>>; 3] = if let Some(number) = object.parse::<u32>("number") {
            let Some(turn) = self.turn(number).await? else { return Ok(None) };
            [Some(turn.content.request), turn.content.answer, None]
        } else {
            let Some((_, until)) = object.parse::<u32>("first_turn").zip(object.parse::<u32>("last_turn")) else {
                return Ok(None);
            };
            let read = match self.house.memory.store()?.read(self.address.clone(), u32::MAX).await {
                Err(StoreError::NotFound) => return Ok(None),
                read => read?,
            };
            let shown_as = parts[2].as_ref().map(|(json, ..)| &json[..]);
            let is_it = |body: &[u8]| Some(&*shown(live, body)) == shown_as;
            let summary = read.summaries.into_iter().find(|one| one.last_turn == until && is_it(&one.body));
            [None, None, summary.map(|summary| summary.body)]
        };
        let is_shown = |(came, stored): (&Option<(Vec<u8>, _, _)>, &Option<Vec<u8>>)| match (came, stored) {
            (Some((came, ..)), Some(stored)) => *shown(live, stored) == came[..],
            (came, stored) => came.is_none() && stored.is_none(),
        };
        if !parts.iter().zip(&stored).all(is_shown) {
            return Ok(None);
        }
        let places = parts.into_iter().zip(stored);
        let mut parts: Vec<_> = places
            .filter_map(|(part, stored)| part.zip(stored).map(|((_, at, text), json)| (json, at, text)))
            .collect();
        parts.extend(user);
        Ok(Some(with(line, parts)))
    }

    async fn turn(&self, number: u32) -> Result<Option<Turn>, TurnTrouble> {
        match self.house.memory.store()?.turns(self.address.clone(), number, 1, 0).await {
            Ok((turns, _)) => Ok(turns.into_iter().find(|turn| turn.number == number)),
            Err(StoreError::NotFound) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Its end user as the log is to have it, if that differs.
    fn end_user(&self) -> Result<Option<Part>, Refusal> {
        let named = self.object.parse::<String>("end_user").zip(self.object.place("end_user", self.line));
        let Some((id, place)) = named else { return Ok(None) };
        let masked = self.house.settings.redaction.end_user(self.tenant, &id)?;
        Ok(masked.map(|masked| (masked.into_bytes(), place, true)))
    }

    /// The line with its texts masked.
    async fn masked(&self, reply: &mut Reply<'_>, talk: &mut Talk, user: Option<Part>) -> Result<Vec<u8>, Stop> {
        let mut parts = Vec::new();
        for (at, names) in PARTS.iter().enumerate() {
            let Some((json, place, text)) = part(self.line, &self.object, *names) else { continue };
            // A list of messages, a message, a summary: each as a body has it.
            let (open, close) = match at {
                0 => (&b"{\"messages\":"[..], &b"}"[..]),
                1 => (&b"{\"messages\":["[..], &b"]}"[..]),
                _ => (&b""[..], &b""[..]),
            };
            let body = Bytes::from([open, &json, close].concat());
            let masked = masking::body(self.house, reply, (self.tenant, self.filter), talk, body).await?;
            parts.push((masked[open.len()..masked.len() - close.len()].to_vec(), place, text));
        }
        if let Some(at) = self.object.place("end_user", self.line) {
            // So that its owner gets it back: what the log has of it is made below.
            let body = [b"{\"metadata\":{\"user_id\":", &self.line[at], b"}}"].concat();
            masking::body(self.house, reply, (self.tenant, self.filter), talk, body.into()).await?;
        }
        parts.extend(user);
        Ok(with(self.line, parts))
    }
}
