//! Looking without rewriting: what is where, and what would stand there.
//!
//! For whoever writes the text himself, because he has it in pieces or wants to tell places: a file, a
//! pipe. The same search as for a request; nothing is refused, every finding comes with what its
//! policy says, and the caller does it.

use super::{Edit, Filter, Form, Pass, Refusal, Scopes, byte_of};
use crate::detect::{Finding, Scratch};
use crate::json::{self, Seen};
use crate::kind::Kind;
use crate::rules::Policy;
use crate::zone::Place;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;

/// Something that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// Where, in bytes of the text or the body.
    pub span: Range<usize>,
    /// What it is.
    pub kind: Kind,
    /// The rule that found it.
    pub rule: &'static str,
    /// Which of the operator's patterns, if it was one.
    pub pattern: Option<u16>,
    /// What is to be done with it.
    pub policy: Policy,
    /// What stands there instead, where it is masked; of a JSON number, in quotes.
    pub instead: Option<String>,
}

/// What was found, in order, without overlaps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// Every finding whose kind is not off.
    pub sightings: Vec<Sighting>,
    /// Base64 media, URLs and file ids that were not looked into.
    pub unscannable: u32,
}

impl Filter {
    /// Looks through a text that is no JSON.
    pub fn look_through_text(
        &self,
        text: &str,
        scopes: Option<&mut Scopes<'_>>,
        scratch: &mut Scratch,
    ) -> Result<Looked, Refusal> {
        self.look(scopes, scratch, |pass| pass.text(text, 0, Form::PLAIN, &byte_of, &mut Vec::new()))
    }

    /// Looks through the body of a Messages request, or of a batch of them.
    pub fn look_through_request(
        &self,
        body: &str,
        scopes: Option<&mut Scopes<'_>>,
        scratch: &mut Scratch,
    ) -> Result<Looked, Refusal> {
        self.look(scopes, scratch, |pass| {
            let mut edits = Vec::new();
            json::walk(body.as_bytes(), Place::BODY, |seen: &Seen<'_, Place>| pass.string(body, seen, &mut edits))
        })
    }

    fn look(
        &self,
        scopes: Option<&mut Scopes<'_>>,
        scratch: &mut Scratch,
        walk: impl Fn(&mut Pass<'_, '_, '_>) -> Result<(), Refusal>,
    ) -> Result<Looked, Refusal> {
        if self.rules.is_off() {
            return Ok(Looked::default());
        }
        // What a rule found is known when it is looked at again; the rule is what is told.
        let rules: RefCell<BTreeMap<_, (&'static str, _)>> = RefCell::default();
        self.until_all_is_known(scopes, scratch, |mut pass| {
            pass.sightings = Some(Vec::new());
            walk(&mut pass)?;
            let (mut sightings, unscannable) = (pass.sightings.unwrap_or_default(), pass.report.unscannable);
            for sighting in &mut sightings {
                let found = (sighting.rule, sighting.pattern);
                let key = (sighting.span.start, sighting.span.end);
                (sighting.rule, sighting.pattern) = *rules.borrow_mut().entry(key).or_insert(found);
            }
            Ok(Looked { sightings, unscannable })
        })
    }
}

impl Pass<'_, '_, '_> {
    /// Notes a finding of the text that begins at `base`, for whoever only looks.
    pub(super) fn saw(&mut self, base: usize, finding: &Finding, policy: Policy, edit: Option<&Edit>) {
        let Some(sightings) = &mut self.sightings else { return };
        let Finding { span, kind, rule, pattern } = finding.clone();
        let quote = if edit.is_some_and(|edit| edit.quoted) { "\"" } else { "" };
        sightings.push(Sighting {
            span: edit.map_or(base + span.start..base + span.end, |edit| edit.span.clone()),
            kind,
            rule,
            pattern,
            policy,
            instead: edit.map(|edit| [quote, edit.instead.text(), quote].concat()),
        });
    }
}
