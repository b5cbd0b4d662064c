//! Where things live that requests refer to.
//!
//! A file, a container, a skill, a thread exists in one workspace of one organisation. Who owns
//! which id is learned from what passes by and kept in a bounded table. A request with a known id
//! goes to its owner, and to nobody else, unless that says 404: then the owner is forgotten. An
//! unknown id is guessed: always the same place for the same id (rendezvous hashing), and where the
//! upstream says 404 the others are tried in turn before that is passed on; who answers is
//! remembered. A guessed place that cannot be asked (its key rejected, its money spent, its quota
//! used up for long) is passed by; but then nobody can say that the thing does not exist.
//!
//! What one tenant's requests teach is of use to that tenant only: nobody can send another's
//! requests astray.

use crate::answer::Trouble;
use crate::generations::Generations;
use crate::identify::Caller;
use std::hash::{DefaultHasher, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use tidegate_schedule::{OrgId, Pin, Refusal, WorkspaceId};
use tidegate_wire::cached::HashKey;
use tidegate_wire::references;
use tidegate_wire::request::MessagesRequest;

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

/// The table.
#[derive(Debug)]
pub(crate) struct References {
    key: HashKey,
    /// Every place there is.
    places: Vec<Place>,
    known: Arc<Mutex<Generations>>,
}

impl References {
    pub(crate) fn new(key: HashKey, mut places: Vec<Place>) -> Self {
        places.sort();
        places.dedup();
        References { key, places, known: Arc::default() }
    }

    /// The same table with other places: what lived at one that is gone is looked for anew.
    pub(crate) fn with_places(&self, places: Vec<Place>) -> Self {
        References { known: Arc::clone(&self.known), ..References::new(self.key, places) }
    }

    /// The hash of what `tenant` calls `id`.
    fn hash(&self, tenant: &str, id: &str) -> u64 {
        let mut hash = DefaultHasher::new();
        self.key.iter().for_each(|k| hash.write_u64(*k));
        hash.write(tenant.as_bytes());
        // No text has this byte in it.
        hash.write_u8(0xff);
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
        let tenant = &caller.tenant.name;
        references::named(body, &request.parts, |id| home.ids.push(self.hash(tenant, id)));
        home.tenant = Some(Arc::clone(tenant));
        home.threads = request.parts.thread.is_some();
        home.learns = home.threads || !home.ids.is_empty() || request.server_tools || request.parts.container.is_some();
        if home.pinned.is_some() || home.ids.is_empty() {
            return Ok(home);
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let there = |place: &Place| self.places.contains(place);
        for place in home.ids.iter().filter_map(|id| known.get(*id).filter(there)) {
            if home.places.first().is_some_and(|other| *other != place) {
                return Err(Trouble::ReferencesApart);
            }
            home.places = vec![place];
        }
        if home.places.is_empty() {
            home.places = self.guesses(home.ids[0]);
            home.is_guess = true;
        }
        Ok(home)
    }

    /// Where a request has to go that is about the thing called `id`, or about nothing yet: a list, or
    /// something new. Those go to the first place, and an unknown id is looked for there first.
    pub(crate) fn home_of(&self, id: Option<&str>, caller: &Caller) -> Home {
        let mut home = Home::at(caller.organisation);
        if self.places.len() < 2 {
            return home;
        }
        let tenant = &caller.tenant.name;
        home.ids = id.iter().map(|id| self.hash(tenant, id)).collect();
        home.tenant = Some(Arc::clone(tenant));
        home.learns = true;
        let may_be = |place: &&Place| caller.organisation.is_none_or(|org| place.org == org);
        let places = self.places.iter().filter(may_be).copied();
        let Some(hash) = home.ids.first() else {
            home.places = places.take(1).collect();
            return home;
        };
        let owner = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(*hash);
        match owner.filter(|place| may_be(&place)) {
            Some(owner) => home.places = vec![owner],
            None => (home.places, home.is_guess) = (places.take(PLACES_TRIED_MAX).collect(), true),
        }
        home
    }

    /// Remembers that `ids` live at `place`.
    fn learn(&self, ids: impl IntoIterator<Item = u64>, place: Place) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        ids.into_iter().for_each(|id| known.put(id, place));
    }

    /// Forgets that any of `ids` lives at `place`.
    fn forget(&self, ids: &[u64], place: Place) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        ids.iter().for_each(|id| known.forget(*id, place));
    }
}

/// Where one request has to go, as far as that is known.
#[derive(Debug, Default)]
pub(crate) struct Home {
    /// The organisation its client named.
    pinned: Option<OrgId>,
    /// Whose it is, if it may refer to something.
    tenant: Option<Arc<str>>,
    /// What it refers to.
    ids: Vec<u64>,
    /// Where that may live, the likeliest first; empty if it may live anywhere.
    places: Vec<Place>,
    /// Whether nobody has said that it lives there.
    is_guess: bool,
    /// How many of these were asked in vain, or passed by.
    vain: usize,
    /// Why the first that was passed by could not be asked.
    unasked: Option<Refusal>,
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
    pub(crate) fn look_on(&mut self, references: &References) -> bool {
        if self.ids.is_empty() {
            return false;
        }
        if let (false, [owner]) = (self.is_guess, &*self.places) {
            let owner = *owner;
            references.forget(&self.ids, owner);
            self.is_guess = true;
            let may_be = |place: &Place| *place != owner && self.pinned.is_none_or(|org| place.org == org);
            self.places.extend(references.guesses(self.ids[0]).into_iter().filter(may_be));
        }
        self.vain += 1;
        self.vain < self.places.len()
    }

    /// It could not be asked for there. False if there is no other place to look, or it is known to
    /// live nowhere else.
    pub(crate) fn passes_by(&mut self, refusal: &Refusal) -> bool {
        let of_that_place =
            matches!(refusal, Refusal::NoKey { .. } | Refusal::SpendCap { .. } | Refusal::TooLong { .. });
        let passes = of_that_place && self.is_guess && self.vain + 1 < self.places.len();
        if passes {
            self.vain += 1;
            self.unasked.get_or_insert(*refusal);
        }
        passes
    }

    /// Why a place where it may live was not asked, if one was not.
    pub(crate) fn unasked(&self) -> Option<Refusal> {
        self.unasked
    }

    /// It was served at `place`, so what it refers to lives there.
    pub(crate) fn found(&self, references: &References, place: Place, message_id: Option<&str>) {
        let Some(tenant) = self.tenant.as_deref().filter(|_| self.learns) else { return };
        let thread = message_id.filter(|_| self.threads).map(|id| references.hash(tenant, id));
        references.learn(self.ids.iter().copied().chain(thread), place);
    }

    /// It was answered from `place`, by what is called `ids`; and what it was about lives there.
    pub(crate) fn knows(&self, references: &References, place: Place, ids: &[impl AsRef<str>]) {
        let Some(tenant) = self.tenant.as_deref() else { return };
        let told = ids.iter().map(|id| references.hash(tenant, id.as_ref()));
        references.learn(self.ids.iter().copied().chain(told), place);
    }

    /// A piece of its answer from `place` goes by.
    pub(crate) fn sees(&self, references: &References, place: Place, piece: &[u8]) {
        let Some(tenant) = self.tenant.as_deref() else { return };
        let mut ids = Vec::new();
        references::told(piece, |id| ids.push(references.hash(tenant, id)));
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
        while home.look_on(&table) {
            asked.push(home.pin());
        }
        asked.sort_by_key(|p| p.unwrap().org);
        assert_eq!(asked, [0, 1, 2, 3].map(|o| Some(place(o).pin())));
        home.found(&table, place(2), None);
        assert_eq!(check(&table, &file("file_1")).unwrap().pin(), Some(place(2).pin()));
        let guesses: std::collections::BTreeSet<_> =
            (0..50).map(|n| check(&table, &file(&format!("f{n}"))).unwrap().pin().unwrap().org).collect();
        assert_eq!(guesses.len(), 4, "different ids are guessed differently");
    }

    #[test]
    fn an_owner_that_has_it_no_more_is_forgotten_and_the_others_are_asked() {
        let table = table(3);
        table.learn([table.hash("default", "file_1")], place(1));
        let mut home = check(&table, &file("file_1")).unwrap();
        let mut asked = vec![home.pin().unwrap().org.0];
        while home.look_on(&table) {
            asked.push(home.pin().unwrap().org.0);
        }
        assert_eq!((asked[0], asked.len()), (1, 3), "each once: {asked:?}");
        let guess = table.guesses(table.hash("default", "file_1"))[0];
        assert_eq!(check(&table, &file("file_1")).unwrap().pin(), Some(guess.pin()), "nobody is known to have it");
    }

    #[test]
    fn a_guess_that_cannot_be_asked_is_passed_by_and_a_known_owner_is_not() {
        let table = table(3);
        let mut home = check(&table, &file("file_1")).unwrap();
        let (first, cap) = (home.pin(), Refusal::SpendCap { retry_after: std::time::Duration::from_secs(9) });
        assert!(!home.passes_by(&Refusal::TooLarge { tokens: 9, limit: 1 }), "that is the request's own");
        assert!(home.passes_by(&cap) && home.pin() != first);
        assert!(
            home.passes_by(&Refusal::NoKey { again: None }) && !home.passes_by(&Refusal::NoKey { again: None }),
            "three places"
        );
        assert_eq!(home.unasked(), Some(cap), "where it is cannot be said");
        home.found(&table, place(2), None);
        let mut known = check(&table, &file("file_1")).unwrap();
        assert!(!known.passes_by(&cap) && known.pin() == Some(place(2).pin()));
    }

    #[test]
    fn what_one_tenant_teaches_sends_nobody_else_astray() {
        let table = table(4);
        let guess = check(&table, &file("file_1")).unwrap().pin();
        for org in 0..4 {
            table.learn([table.hash("somebody else", "file_1")], place(org));
            assert_eq!(check(&table, &file("file_1")).unwrap().pin(), guess);
        }
    }

    #[test]
    fn what_an_answer_tells_is_known_afterwards() {
        let table = table(3);
        let home = check(&table, r#"{"model":"m","thread":{"type":"create"}}"#).unwrap();
        assert_eq!(home.pin(), None);
        home.sees(
            &table,
            place(1),
            br#"{"container":{"id":"cnt_1"},"content":[{"type":"x_output","file_id":"file_7"}]}"#,
        );
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
        table.learn([table.hash("default", "file_1")], place(0));
        table.learn([table.hash("default", "cnt_1")], place(1));
        let both = file("file_1").replace("\"model\"", "\"container\":\"cnt_1\",\"model\"");
        assert!(matches!(check(&table, &both), Err(Trouble::ReferencesApart)));
    }

    #[test]
    fn with_one_place_there_is_nothing_to_look_for() {
        let home = check(&table(1), &file("file_1")).unwrap();
        assert!(home.pin().is_none() && !home.learns);
    }
}
