//! Masking: what is found in a request or a text is replaced, reported, or refuses it.
//!
//! A request is walked through string by string (`zone` says which are text), each is searched, and
//! the body is written anew with the findings replaced and every other byte as it was. Besides what
//! the detector finds, every value that the vault already holds is masked wherever it stands: what was
//! restored for a reader and comes back in the next turn becomes the same token again, also where no
//! word around it says what it is. Open thinking is signed by the API, so in it only such values are
//! replaced, and only as they were written, and of values that are new with this request only those
//! that a rule found before it: what the model had not been told as a token, it wrote itself, and a
//! signature is over that.
//!
//! An error is never a pass: what could not be looked through is refused.

mod known;
mod scopes;
mod sighting;

pub use scopes::Scopes;
pub use sighting::{Looked, Sighting};

use crate::detect::{Detector, Finding, LookingError, Scratch};
use crate::json::{self, Broken, Seen, Sort};
use crate::kind::{KINDS, Kind};
use crate::rules::{Policy, Rules, Style, Unscannable};
use crate::shadow::Shadow;
use crate::token::Token;
use crate::vault::{ScopeKey, Vault, VaultError};
use crate::zone::{Part, Place};
use known::{KNOWN, Known, join};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

/// Most places that a refusal names.
pub const PLACES_MAX: usize = 16;

/// How often a request is looked through while it makes values known: once for what the rules find,
/// once for the same values elsewhere, and for these in another dress.
const PASSES_MAX: usize = 4;
/// Longer names of values say nothing about them.
const NAME_BYTES_MAX: usize = 64;
/// What stands between a name and its value when they are looked through together.
const NAME_SIGN: &str = ": ";

/// Why a request does not go out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It has kinds of data that are not to leave, at these places.
    Blocked(Vec<(Kind, String)>),
    /// It has parts that cannot be looked into, at these places.
    Unscannable(Vec<String>),
    /// It is not the JSON it should be, or too deep.
    NotJson,
    /// Values are to be replaced by tokens, and there is no vault.
    NoVault,
    /// The vault cannot keep a value.
    Vault(VaultError),
    /// A part of the filter itself failed.
    Failed,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Blocked(places) => {
                f.write_str("the request contains data that may not be sent: ")?;
                for (at, (kind, place)) in places.iter().enumerate() {
                    write!(f, "{}{kind} at {place}", if at > 0 { ", " } else { "" })?;
                }
                Ok(())
            }
            Refusal::Unscannable(places) => {
                write!(f, "the request contains parts that cannot be searched for personal data: {}", places.join(", "))
            }
            Refusal::NotJson => f.write_str("the request's body is not valid JSON"),
            Refusal::NoVault => f.write_str("masking by tokens needs a vault"),
            Refusal::Vault(error) => error.fmt(f),
            Refusal::Failed => f.write_str("the filter for personal data failed"),
        }
    }
}

impl std::error::Error for Refusal {}

impl From<Broken> for Refusal {
    fn from(_: Broken) -> Self {
        Refusal::NotJson
    }
}

impl From<VaultError> for Refusal {
    fn from(error: VaultError) -> Self {
        Refusal::Vault(error)
    }
}

/// What was found, in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Findings of each kind, by [`Kind::index`].
    pub found: [u32; KINDS],
    /// How many of them were replaced.
    pub masked: [u32; KINDS],
    /// Base64 media, URLs and file ids that were not looked into.
    pub unscannable: u32,
    /// Strings that were looked through, and their bytes.
    pub texts: u32,
    /// Their bytes.
    pub bytes: u64,
}

/// A masked text or body, and what was done to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Masked {
    /// The bytes to send; `None` if they are those that came.
    pub bytes: Option<Vec<u8>>,
    /// What was found.
    pub report: Report,
}

/// A tenant's filter. Made once, shared by threads.
#[derive(Debug)]
pub struct Filter {
    detector: Detector,
    rules: Rules,
}

/// One request's, or one text's, way through the filter.
struct Pass<'f, 's, 'v> {
    filter: &'f Filter,
    scopes: Option<&'s mut Scopes<'v>>,
    known: Known,
    scratch: &'f mut Scratch,
    report: Report,
    blocked: Vec<(Kind, String)>,
    closed: Vec<String>,
    /// Everything that is found, for whoever only looks.
    sightings: Option<Vec<Sighting>>,
    told: &'f mut Told,
}

/// Where the rules first found the values that are new with a request; 0 for what stands before all
/// messages, wherever it is in the body.
type Told = BTreeMap<Token, usize>;

impl Filter {
    /// The filter of these rules.
    pub fn new(rules: Rules) -> Result<Filter, LookingError> {
        let mut looking = rules.looking.clone();
        looking.kinds = rules.policies.map(|policy| policy != Policy::Off);
        Ok(Filter { detector: Detector::new(&looking)?, rules })
    }

    /// Its rules.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The detector behind it.
    pub fn detector(&self) -> &Detector {
        &self.detector
    }

    /// Masks the body of a Messages request, or of a batch of them. `scopes` may be missing where
    /// nothing gets a token.
    pub fn mask_request(
        &self,
        body: &[u8],
        scopes: Option<&mut Scopes<'_>>,
        scratch: &mut Scratch,
    ) -> Result<Masked, Refusal> {
        if self.rules.is_off() {
            return Ok(Masked { bytes: None, report: Report::default() });
        }
        let text = std::str::from_utf8(body).map_err(|_| Refusal::NotJson)?;
        self.until_all_is_known(scopes, scratch, |mut pass| {
            let mut edits = Vec::new();
            json::walk(body, Place::BODY, |seen: &Seen<'_, Place>| pass.string(text, seen, &mut edits))?;
            pass.finish(text, edits)
        })
    }

    /// Masks a text that is no JSON: a file, a line of a pipe.
    pub fn mask_text(
        &self,
        text: &str,
        scopes: Option<&mut Scopes<'_>>,
        scratch: &mut Scratch,
    ) -> Result<Masked, Refusal> {
        if self.rules.is_off() {
            return Ok(Masked { bytes: None, report: Report::default() });
        }
        self.until_all_is_known(scopes, scratch, |mut pass| {
            let mut edits = Vec::new();
            pass.text(text, 0, Form::PLAIN, &byte_of, &mut edits)?;
            pass.finish(text, edits)
        })
    }

    /// Tags need no vault: which values got one is remembered for this request only.
    fn until_all_is_known<T>(
        &self,
        scopes: Option<&mut Scopes<'_>>,
        scratch: &mut Scratch,
        run: impl Fn(Pass<'_, '_, '_>) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        if self.rules.style == Style::Token {
            return self.passes(scopes, scratch, run);
        }
        let mut passing = Vault::new(ScopeKey::derive(&[0; 32], "", None));
        self.passes(Some(&mut Scopes { own: &mut passing, shared: None }), scratch, run)
    }

    /// Masks once more while values were new: what a word told here stands elsewhere without one, and
    /// would be masked there only with the next turn, which would send other bytes than this one.
    fn passes<T>(
        &self,
        mut scopes: Option<&mut Scopes<'_>>,
        scratch: &mut Scratch,
        run: impl Fn(Pass<'_, '_, '_>) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let count = |scopes: &Option<&mut Scopes<'_>>| scopes.as_ref().map_or(0, |scopes| scopes.len());
        let mut known = count(&scopes);
        let mut told = Told::new();
        let mut masked = run(Pass::new(self, scopes.as_deref_mut(), scratch, &mut told)?)?;
        for _ in 1..PASSES_MAX {
            let now = count(&scopes);
            if std::mem::replace(&mut known, now) == now {
                break;
            }
            masked = run(Pass::new(self, scopes.as_deref_mut(), scratch, &mut told)?)?;
        }
        Ok(masked)
    }
}

/// How a text is to be taken.
#[derive(Clone, Copy)]
struct Form {
    json: bool,
    thinking: bool,
    shared: bool,
    /// A JSON number: what stands instead needs quotes.
    number: bool,
}

impl Form {
    /// A text that is no JSON.
    const PLAIN: Form = Form { json: false, thinking: false, shared: false, number: false };
}

/// Where something stands in a text that is no JSON.
fn byte_of(span: &Range<usize>) -> String {
    format!("byte {}", span.start)
}

/// A span of the whole, and what stands there instead.
struct Edit {
    span: Range<usize>,
    instead: Instead,
    quoted: bool,
}

enum Instead {
    Token(Token),
    Tag(&'static str),
}

impl Instead {
    fn text(&self) -> &str {
        match self {
            Instead::Token(token) => token.as_str(),
            Instead::Tag(tag) => tag,
        }
    }
}

impl<'f, 's, 'v> Pass<'f, 's, 'v> {
    fn new(
        filter: &'f Filter,
        scopes: Option<&'s mut Scopes<'v>>,
        scratch: &'f mut Scratch,
        told: &'f mut Told,
    ) -> Result<Self, Refusal> {
        let tokens = filter.rules.style == Style::Token && filter.rules.policies.contains(&Policy::Mask);
        if tokens && scopes.is_none() {
            return Err(Refusal::NoVault);
        }
        let known = Known::of(scopes.as_deref())?;
        let (report, blocked, closed) = (Report::default(), Vec::new(), Vec::new());
        Ok(Pass { filter, scopes, known, scratch, report, blocked, closed, sightings: None, told })
    }

    fn string(&mut self, body: &str, seen: &Seen<'_, Place>, edits: &mut Vec<Edit>) -> Result<(), Refusal> {
        let part = seen.zone.part;
        let number = seen.sort == Sort::Number;
        let form = Form { json: true, thinking: part == Part::Thinking, shared: seen.zone.shared, number };
        let is_text = match part {
            Part::Text | Part::Thinking => true,
            Part::Own => false,
            Part::Base64 | Part::Url | Part::File => {
                if seen.sort == Sort::String {
                    self.report.unscannable += 1;
                    if self.closed.len() < PLACES_MAX {
                        self.closed.push(seen.place());
                    }
                }
                false
            }
            // Where a list of blocks may stand, a string is text; names of members are the API's.
            _ => seen.sort == Sort::String,
        };
        // Numbers of the API's own fields are nobody's.
        let is_text = is_text && !(number && part != Part::Text);
        if is_text {
            let name = seen.name().filter(|_| seen.sort != Sort::Key);
            if let Some(name) = name.map(|span| &body[span]).filter(|name| name.len() <= NAME_BYTES_MAX) {
                return self.named(name, &body[seen.span.clone()], seen, form, edits);
            }
            self.text(&body[seen.span.clone()], seen.span.start, form, &|_| seen.place(), edits)?;
        }
        Ok(())
    }

    /// A value under a name that the client gave it: the name may say what it is.
    fn named(
        &mut self,
        name: &str,
        value: &str,
        seen: &Seen<'_, Place>,
        form: Form,
        edits: &mut Vec<Edit>,
    ) -> Result<(), Refusal> {
        self.report.texts += 1;
        self.report.bytes += value.len() as u64;
        let lead = name.len() + NAME_SIGN.len();
        let text = [name, NAME_SIGN, value].concat();
        let found = self.filter.detector.find_with(self.scratch, &text);
        let known = self.known.find(&self.scratch.shadow, false);
        for mut finding in join(found, known) {
            // What begins in the name is found there by itself; what goes on into the value is its part.
            if finding.span.end <= lead {
                continue;
            }
            finding.span = finding.span.start.max(lead) - lead..finding.span.end - lead;
            self.finding(value, seen.span.start, form, &finding, &|_| seen.place(), edits)?;
        }
        Ok(())
    }

    /// Looks through one text, which begins at `base` of the whole.
    fn text(
        &mut self,
        text: &str,
        base: usize,
        form: Form,
        place: &dyn Fn(&Range<usize>) -> String,
        edits: &mut Vec<Edit>,
    ) -> Result<(), Refusal> {
        self.report.texts += 1;
        self.report.bytes += text.len() as u64;
        let found = if form.thinking {
            self.scratch.shadow.cast(text.as_bytes());
            Vec::new()
        } else {
            self.filter.detector.find_with(self.scratch, text)
        };
        let known = self.known.find(&self.scratch.shadow, form.thinking);
        for finding in join(found, known) {
            self.finding(text, base, form, &finding, place, edits)?;
        }
        Ok(())
    }

    fn finding(
        &mut self,
        text: &str,
        base: usize,
        form: Form,
        finding: &Finding,
        place: &dyn Fn(&Range<usize>) -> String,
        edits: &mut Vec<Edit>,
    ) -> Result<(), Refusal> {
        let raw = text.get(finding.span.clone()).ok_or(Refusal::Failed)?;
        // What is masked already is not masked again.
        if Token::read(raw.as_bytes()).is_some() {
            return Ok(());
        }
        let index = finding.kind.index();
        let policy = self.filter.rules.policy(finding.kind);
        if !form.thinking {
            self.report.found[index] += 1;
        }
        match policy {
            Policy::Block if !form.thinking => {
                self.saw(base, finding, policy, None);
                if self.blocked.len() < PLACES_MAX {
                    self.blocked.push((finding.kind, place(&finding.span)));
                }
                return Ok(());
            }
            Policy::Mask => {}
            // A value that has a token keeps it, whatever the policy became.
            _ if finding.rule == KNOWN => {}
            _ => {
                self.saw(base, finding, policy, None);
                return Ok(());
            }
        }
        // A part of a number cannot stand for itself.
        let (span, raw) = if form.number {
            (base..base + text.len(), text)
        } else {
            (base + finding.span.start..base + finding.span.end, raw)
        };
        if form.thinking && self.filter.rules.style == Style::Tag {
            return Ok(());
        }
        let scopes = self.scopes.as_deref_mut().ok_or(Refusal::NoVault)?;
        let value = if form.json { json::unescape(raw)? } else { raw.to_owned() };
        let token = if form.thinking {
            // Signed: only what was put there by us is taken back, byte for byte.
            match scopes.known(&value, form.shared) {
                Some(token) if self.told.get(&token).is_none_or(|at| *at < base) => token,
                _ => return Ok(()),
            }
        } else {
            let before = scopes.len();
            let token = scopes.token(finding.kind, &plain(finding.kind, raw), &value, form.shared)?;
            let is_new = scopes.len() > before || self.told.contains_key(&token);
            if is_new && finding.rule != KNOWN {
                let at = if place(&finding.span).starts_with("messages") { span.start } else { 0 };
                let told = self.told.entry(token).or_insert(at);
                *told = at.min(*told);
            }
            token
        };
        let instead = match self.filter.rules.style {
            Style::Token => Instead::Token(token),
            Style::Tag => Instead::Tag(finding.kind.tag()),
        };
        self.report.masked[index] += 1;
        let edit = Edit { span, instead, quoted: form.number };
        self.saw(base, finding, Policy::Mask, Some(&edit));
        edits.push(edit);
        Ok(())
    }

    fn finish(self, text: &str, edits: Vec<Edit>) -> Result<Masked, Refusal> {
        if !self.blocked.is_empty() {
            return Err(Refusal::Blocked(self.blocked));
        }
        let rules = &self.filter.rules;
        if !self.closed.is_empty() && rules.unscannable == Unscannable::Block && rules.is_strict() {
            return Err(Refusal::Unscannable(self.closed));
        }
        let mut bytes = Vec::with_capacity(if edits.is_empty() { 0 } else { text.len() + edits.len() * 8 });
        let mut at = 0;
        for Edit { span, instead, quoted } in &edits {
            bytes.extend_from_slice(text.get(at..span.start).ok_or(Refusal::Failed)?.as_bytes());
            let quote = if *quoted { "\"" } else { "" };
            [quote, instead.text(), quote].iter().for_each(|part| bytes.extend_from_slice(part.as_bytes()));
            at = span.end;
        }
        if edits.is_empty() {
            return Ok(Masked { bytes: None, report: self.report });
        }
        bytes.extend_from_slice(&text.as_bytes()[at..]);
        Ok(Masked { bytes: Some(bytes), report: self.report })
    }
}

/// A value without the way it is written, so that its token's letters say what belongs together.
fn plain(kind: Kind, raw: &str) -> Vec<u8> {
    let mut shadow = Shadow::default();
    shadow.cast(raw.as_bytes());
    let text = shadow.text();
    match kind {
        Kind::Secret | Kind::PrivateKey | Kind::Jwt | Kind::Password | Kind::Custom | Kind::Name | Kind::Address => {
            text.to_vec()
        }
        Kind::Email | Kind::Ip => {
            text.iter().filter(|b| !b.is_ascii_whitespace()).map(u8::to_ascii_lowercase).collect()
        }
        _ => {
            let signs: Vec<u8> =
                text.iter().filter(|b| b.is_ascii_alphanumeric() || **b >= 0x80).map(u8::to_ascii_uppercase).collect();
            let mobile = signs.strip_prefix(b"86").or_else(|| signs.strip_prefix(b"0086"));
            match mobile.filter(|rest| kind == Kind::Phone && rest.len() == 11) {
                Some(mobile) => mobile.to_vec(),
                None => signs,
            }
        }
    }
}
