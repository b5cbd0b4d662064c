//! Numbers: which groups of a cluster of digits are one, and what it is.
//!
//! Every start and every end within a cluster is tried, up to the length of the longest number, and
//! each rule says how sure it is. Surest wins, then longest. The work is bounded by groups times the
//! few ends that a number can have, so a table of numbers costs linear time.

use super::cluster::{self, GROUPS_MAX, Group, Run};
use super::cue::{Cues, Near, Topic};
use super::{Hit, SCORE_MIN, card, national, phone};
use crate::checks;
use crate::kind::Kind;
use std::cell::Cell;

/// What a rule thinks of a number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Verdict {
    pub(crate) kind: Kind,
    pub(crate) rule: &'static str,
    pub(crate) score: i32,
}

/// A number's surroundings.
pub(crate) struct Context<'a> {
    text: &'a [u8],
    cues: &'a Cues,
    start: usize,
    end: usize,
    /// The byte before it; a plus that stands before an opening parenthesis counts as if beside it.
    pub(crate) before: u8,
    /// The byte behind it.
    pub(crate) after: u8,
    listed: bool,
    /// Cues before it, shared by all ends that are tried; and with those behind it.
    ahead: &'a Cell<Option<Near>>,
    near: Cell<Option<Near>>,
}

impl<'a> Context<'a> {
    fn new(
        text: &'a [u8],
        cues: &'a Cues,
        ahead: &'a Cell<Option<Near>>,
        groups: &[Group],
        first: usize,
        last: usize,
    ) -> Self {
        let (start, end) = (groups[first].0, groups[last].1);
        let at = |back: usize| start.checked_sub(back).map_or(b' ', |at| text[at]);
        let before = if at(1) == b'(' && at(2) == b'+' { b'+' } else { at(1) };
        let after = text.get(end).copied().unwrap_or(b' ');
        let listed = is_listed(text, groups, first, last);
        Context { text, cues, start, end, before, after, listed, ahead, near: Cell::new(None) }
    }

    /// The text it stands in.
    pub(crate) fn text(&self) -> &'a [u8] {
        self.text
    }

    /// The cues around it.
    pub(crate) fn near(&self) -> Near {
        let near = self.near.get().unwrap_or_else(|| self.cues.behind(self.text, self.end, self.ahead()));
        self.near.set(Some(near));
        near
    }

    /// The cues before it.
    pub(crate) fn ahead(&self) -> Near {
        let near = self.ahead.get().unwrap_or_else(|| self.cues.ahead(self.text, self.start));
        self.ahead.set(Some(near));
        near
    }

    /// Whether it begins with the exit code 00.
    pub(crate) fn prefix_00(&self, digits: &[u8]) -> bool {
        digits.starts_with(b"00") && digits.len() > 10
    }

    /// Whether it goes on in numbers of the same writing: a list, a version, a part of an id.
    pub(crate) fn is_listed(&self) -> bool {
        self.listed
    }

    /// Whether it is the last part of something that has letters: a UUID.
    pub(crate) fn is_tail(&self) -> bool {
        let prior = self.start.checked_sub(2).map_or(b' ', |at| self.text[at]);
        self.before == b'-' && prior.is_ascii_alphanumeric()
    }

    /// Whether it is money, a share or a decimal.
    pub(crate) fn is_amount(&self) -> bool {
        let ends = |sign: &[u8]| self.text[..self.start].ends_with(sign);
        self.is_amount_after()
            || ends(b"$")
            || ends("€".as_bytes())
            || ends("£".as_bytes())
            || ends("¥".as_bytes())
            || ends("￥".as_bytes())
            || (self.before == b'.' && self.start > 1 && self.text[self.start - 2].is_ascii_digit())
    }

    /// Whether what follows makes it a share or a decimal.
    pub(crate) fn is_amount_after(&self) -> bool {
        let next = self.text.get(self.end + 1).copied().unwrap_or(b' ');
        self.after == b'%' || (self.after == b'.' && next.is_ascii_digit())
    }
}

/// Whether digits beside the number belong to the same writing: joined tightly, or by what joins the
/// groups of the number itself. Asked of the text, as a cluster may be cut.
fn is_listed(text: &[u8], groups: &[Group], first: usize, last: usize) -> bool {
    let own = |sep: &[u8]| (first..last).any(|at| &text[groups[at].1..groups[at + 1].0] == sep);
    let joins = |sep: &[u8]| matches!(sep, b"-" | b"." | b"_" | b"*") || (!sep.contains(&b'\n') && own(sep));
    let (start, end) = (groups[first].0, groups[last].1);
    (1..=3).any(|n| {
        let before = start.checked_sub(n).filter(|at| *at > 0 && text[at - 1].is_ascii_digit());
        let after = text.get(end + n).filter(|b| b.is_ascii_digit());
        before.is_some_and(|at| joins(&text[at..start])) || (after.is_some() && joins(&text[end..end + n]))
    })
}

/// Looks through the cluster of digits that begins at `at`; returns where to go on. `glued` says that
/// letters stand right before it: then only a word among them that names it makes it count.
pub(crate) fn scan(
    text: &[u8],
    at: usize,
    glued: bool,
    cues: &Cues,
    groups: &mut Vec<Group>,
    hits: &mut Vec<Hit>,
) -> usize {
    cluster::groups(text, at, groups);
    let mut first = 0;
    while first < groups.len() {
        // A cluster is cut at its maximum; what a later start would need is looked at again.
        if groups.len() == GROUPS_MAX && first >= GROUPS_MAX / 2 {
            return groups[first].0;
        }
        first = match best(text, groups, first, glued && first == 0, cues) {
            Some((last, hit)) => {
                hits.push(hit);
                last + 1
            }
            None => first + 1,
        };
    }
    groups.last().map_or(at + 1, |last| last.1)
}

/// The best number that begins with the group `first`.
fn best(text: &[u8], groups: &[Group], first: usize, glued: bool, cues: &Cues) -> Option<(usize, Hit)> {
    let mut found: Option<(usize, Hit)> = None;
    let ahead = Cell::new(None);
    let mut digits = 0;
    for last in first..groups.len() {
        digits += groups[last].1 - groups[last].0;
        if digits > cluster::DIGITS_MAX {
            break;
        }
        if digits < 7 {
            continue;
        }
        let Some(run) = Run::of(text, &groups[first..=last]) else { break };
        let context = Context::new(text, cues, &ahead, groups, first, last);
        let Some((verdict, end)) = judge(&run, &context) else { continue };
        let enough = verdict.score >= SCORE_MIN && (!glued || context.ahead().distance(Topic::Phone) <= 1);
        if enough && found.as_ref().is_none_or(|(_, best)| verdict.score >= best.score) {
            found = Some((
                last,
                Hit {
                    start: run.start,
                    end,
                    kind: verdict.kind,
                    rule: verdict.rule,
                    score: verdict.score,
                    custom: None,
                },
            ));
        }
    }
    found
}

/// What a number is, by the surest rule, and where it ends.
fn judge(run: &Run, around: &Context<'_>) -> Option<(Verdict, usize)> {
    if let Some(found) = with_letter(run, around) {
        return Some(found);
    }
    if around.after.is_ascii_alphanumeric() {
        return None;
    }
    let verdicts = [
        resident(run, around),
        company(run, around),
        passport(run, around),
        card::judge(run, around),
        phone::judge(run, around),
        national::judge(run, around),
    ];
    let best = verdicts.into_iter().flatten().max_by_key(|verdict| verdict.score)?;
    Some((best, run.end))
}

/// A resident identity number with its X, which stands right behind the digits.
fn with_letter(run: &Run, around: &Context<'_>) -> Option<(Verdict, usize)> {
    // Set apart like the digits, it may stand behind a space or a hyphen.
    let apart = usize::from(run.groups > 1 && matches!(around.after, b' ' | b'-'));
    let end = run.end + apart + 1;
    let letter = around.text.get(end - 1).is_some_and(|b| b.eq_ignore_ascii_case(&b'x'));
    if run.len != 17 || !letter || around.text.get(end).is_some_and(u8::is_ascii_alphanumeric) {
        return None;
    }
    let mut id = run.digits().to_vec();
    id.push(b'X');
    let verdict = Verdict { kind: Kind::ResidentId, rule: "cn_resident", score: 90 };
    checks::cn_resident(&id).then_some((verdict, end))
}

/// A resident identity number: of 18 digits, or of 15 if a word says so.
fn resident(run: &Run, around: &Context<'_>) -> Option<Verdict> {
    let base = match run.len {
        // Parts of it apart: area, date and rest, or digit by digit.
        18 if run.groups > 1 && (around.is_listed() || !(run.one_by_one() || run.groups < 4 || run.shape[0] == 6)) => {
            return None;
        }
        18 => 92,
        15 if run.groups <= 3 => 35,
        _ => return None,
    };
    if !checks::cn_resident(run.digits()) {
        return None;
    }
    let moves = around.near().moves(&[Topic::Identity]);
    Some(Verdict { kind: Kind::ResidentId, rule: "cn_resident", score: base + moves })
}

/// A credit code without letters: of its 31 signs one is the check, so a word has to say it.
fn company(run: &Run, around: &Context<'_>) -> Option<Verdict> {
    if run.len != 18 || !checks::cn_credit_code(run.digits()) {
        return None;
    }
    let moves = around.near().moves(&[Topic::Company]);
    Some(Verdict { kind: Kind::CreditCode, rule: "cn_credit_code", score: 30 + moves })
}

/// A passport of nine digits, if its word is the nearest.
fn passport(run: &Run, around: &Context<'_>) -> Option<Verdict> {
    if run.len != 9 || run.groups > 1 || !around.near().has(Topic::Passport) {
        return None;
    }
    Some(Verdict { kind: Kind::Passport, rule: "passport", score: 30 + around.near().moves(&[Topic::Passport]) })
}
