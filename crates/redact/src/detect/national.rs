//! National numbers made of digits: by length, check digits, the way they are written, and words.
//!
//! Each row of the table is a country's number. A check digit lets one number in ten or hundred
//! through, so bare digits count only with a word beside them; the country's own way of writing them
//! (`123.456.789-09`) is as good as a word. Numbers that contain letters are in `word`.

use super::cluster::Run;
use super::cue::Topic;
use super::number::{Context, Verdict};
use crate::checks;
use crate::kind::Kind;

struct Row {
    rule: &'static str,
    kind: Kind,
    len: usize,
    check: fn(&[u8]) -> bool,
    /// The score of bare digits, without a word.
    bare: i32,
    /// Its own way of writing, as lengths and separators; empty if it has none.
    form: &'static str,
    /// The score of that.
    formed: i32,
}

const fn row(
    rule: &'static str,
    len: usize,
    check: fn(&[u8]) -> bool,
    bare: i32,
    form: &'static str,
    formed: i32,
) -> Row {
    Row { rule, kind: Kind::NationalId, len, check, bare, form, formed }
}

const ROWS: [Row; 31] = [
    Row { kind: Kind::Ssn, ..row("us_ssn", 9, checks::us_ssn, 20, "3-2-4", 65) },
    Row { kind: Kind::Ssn, ..row("us_ssn", 9, checks::us_ssn, 20, "3 2 4", 50) },
    row("br_cpf", 11, checks::br_cpf, 25, "3.3.3-2", 80),
    row("br_cnpj", 14, checks::br_cnpj, 25, "2.3.3/4-2", 85),
    row("pl_pesel", 11, checks::pl_pesel, 25, "", 0),
    row("be_register", 11, checks::be_register, 25, "2.2.2-3.2", 80),
    row("de_tax", 11, checks::de_tax, 25, "2 3 3 3", 55),
    row("no_birth", 11, checks::no_birth, 30, "6 5", 60),
    row("tr_kimlik", 11, checks::tr_kimlik, 25, "", 0),
    row("ar_cuit", 11, checks::ar_cuit, 25, "2-8-1", 75),
    row("in_aadhaar", 12, checks::in_aadhaar, 25, "4 4 4", 58),
    row("in_aadhaar", 12, checks::in_aadhaar, 25, "4-4-4", 55),
    row("jp_individual", 12, checks::jp_individual, 20, "4 4 4", 35),
    row("kr_rrn", 13, checks::kr_rrn, 25, "6-7", 80),
    row("za_id", 13, checks::za_id, 30, "6 4 3", 60),
    row("ch_ahv", 13, checks::ch_ahv, 55, "3.4.4.2", 90),
    row("fr_nir", 15, checks::fr_nir, 45, "1 2 2 2 3 3 2", 90),
    row("fr_nir", 15, checks::fr_nir, 45, "13 2", 70),
    row("nl_bsn", 9, checks::nl_bsn, 20, "4.2.3", 55),
    row("pt_nif", 9, checks::pt_nif, 20, "3 3 3", 35),
    row("ca_sin", 9, checks::ca_sin, 20, "3 3 3", 40),
    row("ca_sin", 9, checks::ca_sin, 20, "3-3-3", 55),
    row("au_tfn", 9, checks::au_tfn, 20, "3 3 3", 35),
    row("cl_rut", 9, checks::cl_rut, 20, "2.3.3-1", 80),
    row("cl_rut", 9, checks::cl_rut, 20, "8-1", 45),
    row("cl_rut", 8, checks::cl_rut, 15, "1.3.3-1", 75),
    row("cl_rut", 8, checks::cl_rut, 15, "7-1", 40),
    row("gb_nhs", 10, checks::gb_nhs, 20, "3 3 4", 45),
    row("se_person", 10, checks::se_person, 20, "6-4", 62),
    row("au_medicare", 10, checks::au_medicare, 20, "4 5 1", 55),
    row(
        "se_person",
        12,
        |id| {
            id.starts_with(b"19") && checks::se_person(&id[2..]) || id.starts_with(b"20") && checks::se_person(&id[2..])
        },
        30,
        "8-4",
        70,
    ),
];

/// Whether the number is written so.
fn is_form(form: &str, run: &Run, text: &[u8]) -> bool {
    let mut at = 0;
    let mut group = 0;
    let bytes = form.as_bytes();
    let mut place = run.start;
    while at < bytes.len() {
        let digits = bytes[at..].iter().take_while(|b| b.is_ascii_digit()).count();
        let len = checks::number(&bytes[at..at + digits]) as usize;
        if run.shape().get(group).is_none_or(|have| usize::from(*have) != len) {
            return false;
        }
        place += len;
        at += digits;
        group += 1;
        if let Some(separator) = bytes.get(at) {
            if text.get(place) != Some(separator) || !text.get(place + 1).is_some_and(u8::is_ascii_digit) {
                return false;
            }
            place += 1;
            at += 1;
        }
    }
    group > 1 && group == run.groups
}

/// Whether `run` is a national number.
pub(crate) fn judge(run: &Run, around: &Context<'_>) -> Option<Verdict> {
    let digits = run.digits();
    if !(8..=15).contains(&digits.len()) || around.is_amount() || around.is_listed() || around.is_tail() {
        return None;
    }
    let mut best: Option<Verdict> = None;
    for row in ROWS.iter().filter(|row| row.len == digits.len()) {
        let formed = run.groups > 1 && is_form(row.form, run, around.text());
        let few = run.groups <= 7 || run.one_by_one();
        if !few || !(row.check)(digits) {
            continue;
        }
        let topic = if row.kind == Kind::Ssn { Topic::Ssn } else { Topic::Identity };
        // Somebody may have one, or mean theirs: then a word says so.
        if row.kind == Kind::Ssn && checks::is_us_ssn_example(digits) && !around.near().has(topic) {
            continue;
        }
        let moves = if formed { around.near().moves(&[topic]) } else { around.near().moves_weak(topic) };
        let base = if formed { row.formed } else { row.bare };
        // What is written in another way than its own needs a word that is very near.
        let score = base + moves - if run.groups > 1 && !formed { 5 } else { 0 };
        if best.is_none_or(|best| score > best.score) {
            best = Some(Verdict { kind: row.kind, rule: row.rule, score });
        }
    }
    best
}
