//! Where things live that requests refer to.
//!
//! A file, a container, a skill, a thread exists in one workspace of one organisation. Who owns
//! which id is learned from what passes by and kept in a bounded table. A request with a known id
//! goes to its owner, and to nobody else. An unknown id is guessed: always the same place for the
//! same id (rendezvous hashing), and where the upstream says 404 the others are tried in turn
//! before that is passed on; who answers is remembered.
//!
//! The table has two generations: what is used moves into the young one; when that is full the old
//! one is dropped and the young one grows old. So it forgets roughly what was not used for longest.

use crate::answer::Trouble;
use crate::identify::Caller;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};
use std::mem;
use std::sync::{Mutex, PoisonError};
use tidegate_schedule::{OrgId, Pin, WorkspaceId};
use tidegate_wire::cached::HashKey;
use tidegate_wire::references::{self, IDS_MAX};
use tidegate_wire::request::MessagesRequest;

/// Ids whose owner is remembered, both generations together: a few megabytes.
const REMEMBERED_MAX: usize = 100_000;
/// Places that are asked for an id whose owner is unknown.
const PLACES_TRIED_MAX: usize = 16;

/// Where a thing can live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) org: OrgId,
    pub(crate) workspace: Option<WorkspaceId>,
}

impl Place {
    fn pin(self) -> Pin {
        Pin { org: self.org, workspace: Some(self.workspace) }
    }
}

#[derive(Debug, Default)]
struct Generations {
    young: BTreeMap<u64, Place>,
    old: BTreeMap<u64, Place>,
}

impl Generations {
    fn put(&mut self, id: u64, place: Place) {
        if self.young.len() >= REMEMBERED_MAX / 2 && !self.young.contains_key(&id) {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(id, place);
    }

    fn get(&mut self, id: u64) -> Option<Place> {
        if let Some(place) = self.young.get(&id) {
            return Some(*place);
        }
        let place = self.old.remove(&id)?;
        self.put(id, place);
        Some(place)
    }
}

/// The table.
#[derive(Debug)]
pub(crate) struct References {
    key: HashKey,
    /// Every place there is.
    places: Vec<Place>,
    known: Mutex<Generations>,
}

impl References {
    pub(crate) fn new(key: HashKey, mut places: Vec<Place>) -> Self {
        places.sort();
        places.dedup();
        References { key, places, known: Mutex::default() }
    }

    fn hash(&self, id: &str) -> u64 {
        let mut hash = DefaultHasher::new();
        self.key.iter().for_each(|k| hash.write_u64(*k));
        hash.write(id.as_bytes());
        hash.finish()
    }

    /// Every place, the likeliest for this id first: the same order each time, a different one for
    /// another id.
    fn guesses(&self, id: u64) -> Vec<Place> {
        let weight = |place: &Place| {
            let mut hash = DefaultHasher::new();
            hash.write_u64(id);
            hash.write_u32(place.org.0);
            hash.write_u32(place.workspace.map_or(u32::MAX, |w| u32::from(w.0)));
            hash.finish()
        };
        let mut places = self.places.clone();
        places.sort_by_cached_key(weight);
        places.truncate(PLACES_TRIED_MAX);
        places
    }

    /// Where the request has to go. With one place there is nothing to choose or to learn.
    pub(crate) fn home(&self, body: &[u8], request: &MessagesRequest, caller: &Caller) -> Result<Home, Trouble> {
        let mut home = Home::at(caller.organisation);
        if self.places.len() < 2 {
            return Ok(home);
        }
        references::named(body, &request.parts, |id| {
            if home.ids.len() < IDS_MAX {
                home.ids.push(self.hash(id));
            }
        });
        home.threads = request.parts.thread.is_some();
        home.learns = home.threads || !home.ids.is_empty() || request.server_tools || request.parts.container.is_some();
        if home.pinned.is_some() || home.ids.is_empty() {
            return Ok(home);
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for place in home.ids.iter().filter_map(|id| known.get(*id)) {
            if home.places.first().is_some_and(|other| *other != place) {
                return Err(Trouble::ReferencesApart);
            }
            home.places = vec![place];
        }
        if home.places.is_empty() {
            home.places = self.guesses(home.ids[0]);
        }
        Ok(home)
    }

    /// Remembers that `ids` live at `place`.
    fn learn(&self, ids: impl IntoIterator<Item = u64>, place: Place) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        ids.into_iter().for_each(|id| known.put(id, place));
    }
}

/// Where one request has to go, as far as that is known.
#[derive(Debug, Default)]
pub(crate) struct Home {
    /// The organisation its client named.
    pinned: Option<OrgId>,
    /// What it refers to.
    ids: Vec<u64>,
    /// Where that may live, the likeliest first; empty if it may live anywhere.
    places: Vec<Place>,
    /// How many of these were asked in vain.
    vain: usize,
    /// Whether its answer may make ids known.
    pub(crate) learns: bool,
    /// Whether the id of its answer is a thread's.
    threads: bool,
}

impl Home {
    /// A request that refers to nothing.
    pub(crate) fn at(pinned: Option<OrgId>) -> Self {
        Home { pinned, ..Home::default() }
    }

    /// Where the next attempt has to go.
    pub(crate) fn pin(&self) -> Option<Pin> {
        let place = self.places.get(self.vain).map(|p| p.pin());
        place.or(self.pinned.map(|org| Pin { org, workspace: None }))
    }

    /// It was not there. False if there is no other place to look.
    pub(crate) fn look_on(&mut self) -> bool {
        self.vain += 1;
        self.vain < self.places.len()
    }

    /// It was served at `place`, so what it refers to lives there.
    pub(crate) fn found(&self, references: &References, place: Place, message_id: Option<&str>) {
        let thread = message_id.filter(|_| self.threads).map(|id| references.hash(id));
        if self.learns {
            references.learn(self.ids.iter().copied().chain(thread), place);
        }
    }

    /// A piece of its answer from `place` goes by.
    pub(crate) fn sees(&self, references: &References, place: Place, piece: &[u8]) {
        let mut ids = Vec::new();
        references::told(piece, |id| ids.push(references.hash(id)));
        if !ids.is_empty() {
            references.learn(ids, place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(org: u32) -> Place {
        Place { org: OrgId(org), workspace: None }
    }

    fn table(places: u32) -> References {
        References::new([1, 2], (0..places).map(place).collect())
    }

    fn check(table: &References, body: &str) -> Result<Home, Trouble> {
        let request = MessagesRequest::read(body.as_bytes()).unwrap();
        table.home(body.as_bytes(), &request, &Caller::anybody())
    }

    fn file(id: &str) -> String {
        format!(r#"{{"model":"m","messages":[{{"content":[{{"source":{{"type":"file","file_id":"{id}"}}}}]}}]}}"#)
    }

    #[test]
    fn an_unknown_id_is_looked_for_everywhere_and_then_known() {
        let table = table(4);
        let mut home = check(&table, &file("file_1")).unwrap();
        let first = home.pin();
        assert_eq!(check(&table, &file("file_1")).unwrap().pin(), first, "the same guess each time");
        let mut asked = vec![first];
        while home.look_on() {
            asked.push(home.pin());
        }
        asked.sort_by_key(|p| p.unwrap().org);
        assert_eq!(asked, [0, 1, 2, 3].map(|o| Some(place(o).pin())));
        home.found(&table, place(2), None);
        let mut home = check(&table, &file("file_1")).unwrap();
        assert_eq!(home.pin(), Some(place(2).pin()));
        assert!(!home.look_on(), "its owner's word is the last");
        let guesses: std::collections::BTreeSet<_> =
            (0..50).map(|n| check(&table, &file(&format!("f{n}"))).unwrap().pin().unwrap().org).collect();
        assert_eq!(guesses.len(), 4, "different ids are guessed differently");
    }

    #[test]
    fn what_an_answer_tells_is_known_afterwards() {
        let table = table(3);
        let home = check(&table, r#"{"model":"m","thread":{"type":"create"}}"#).unwrap();
        assert_eq!(home.pin(), None);
        home.sees(&table, place(1), br#"{"container":{"id":"cnt_1"},"content":[{"file_id":"file_7"}]}"#);
        home.found(&table, place(1), Some("msg_1"));
        for body in [
            file("file_7"),
            r#"{"model":"m","container":"cnt_1"}"#.to_owned(),
            r#"{"model":"m","thread":{"type":"continue","previous_message_id":"msg_1"}}"#.to_owned(),
        ] {
            assert_eq!(check(&table, &body).unwrap().pin(), Some(place(1).pin()), "{body}");
        }
    }

    #[test]
    fn ids_of_different_owners_cannot_be_served_together() {
        let table = table(3);
        table.learn([table.hash("file_1")], place(0));
        table.learn([table.hash("cnt_1")], place(1));
        let both = file("file_1").replace("\"model\"", "\"container\":\"cnt_1\",\"model\"");
        assert!(matches!(check(&table, &both), Err(Trouble::ReferencesApart)));
    }

    #[test]
    fn with_one_place_there_is_nothing_to_look_for() {
        let home = check(&table(1), &file("file_1")).unwrap();
        assert!(home.pin().is_none() && !home.learns);
    }

    #[test]
    fn the_table_is_bounded_and_keeps_what_is_used() {
        let mut table = Generations::default();
        table.put(7, place(1));
        for id in 1_000..300_000 {
            table.put(id, place(0));
            if id % 10_000 == 0 {
                assert_eq!(table.get(7), Some(place(1)), "{id}");
            }
            assert!(table.young.len() + table.old.len() <= REMEMBERED_MAX);
        }
        assert_eq!(table.get(1_000), None);
    }
}
