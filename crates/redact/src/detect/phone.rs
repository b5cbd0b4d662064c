//! Telephone numbers: Chinese mobile and landline, North American, and E.164.
//!
//! A number with its country code in front needs little more; a bare one must have the form of its
//! country and no word beside it that makes it an order or a time. Ten digits alone are no phone:
//! half of all timestamps would be.

use super::cluster::{Join, Run};
use super::cue::Topic;
use super::number::{Context, Verdict};
use crate::kind::Kind;

/// Country codes in use, by their first digits. From the list of ITU-T E.164.
fn country_code(digits: &[u8]) -> usize {
    match digits {
        [b'1' | b'7', ..] => 1,
        [b'2', b'0' | b'7', ..]
        | [b'3', b'0'..=b'4' | b'6' | b'9', ..]
        | [b'4', b'0' | b'1' | b'3'..=b'9', ..]
        | [b'5', b'1'..=b'8', ..]
        | [b'6', b'0'..=b'6', ..]
        | [b'8', b'1' | b'2' | b'4' | b'6', ..]
        | [b'9', b'0'..=b'5' | b'8', ..] => 2,
        [b'2', b'1' | b'2'..=b'6' | b'9', _, ..]
        | [b'3', b'5' | b'7' | b'8', _, ..]
        | [b'4', b'2', _, ..]
        | [b'5', b'0' | b'9', _, ..]
        | [b'6', b'7'..=b'9', _, ..]
        | [b'8', b'0' | b'5' | b'7' | b'8', _, ..]
        | [b'9', b'6' | b'7' | b'9', _, ..] => 3,
        _ => 0,
    }
}

/// Eleven digits of a Chinese mobile number. Which third digits are given out changes every other year,
/// so all of them count.
fn is_cn_mobile(digits: &[u8]) -> bool {
    matches!(digits, [b'1', b'3'..=b'9', ..]) && digits.len() == 11
}

/// How a mobile number is written: in one piece, 3-4-4, 3-3-5, 3-4-2-2, 4-3-4, or digit by digit.
fn is_cn_mobile_shape(run: &Run, skip: usize) -> bool {
    let shape = &run.shape()[skip..];
    matches!(
        shape,
        [11] | [3, 4, 4] | [3, 3, 5] | [3, 8] | [7, 4] | [4, 3, 4] | [3, 2, 2, 2, 2] | [5, 6] | [3, 4, 2, 2]
    ) || (shape.len() == 11 && run.one_by_one())
}

/// Whether it has the form of a landline: area code with its zero, and seven or eight digits.
fn is_cn_landline(digits: &[u8]) -> Option<usize> {
    let area = match digits {
        [b'0', b'1', b'0', ..] | [b'0', b'2', b'0' | b'1'..=b'5' | b'7'..=b'9', ..] => 3,
        [b'0', b'3'..=b'9', b'1'..=b'9', _, ..] => 4,
        _ => return None,
    };
    let subscriber = digits.get(area..)?;
    let right = matches!(subscriber.len(), 7 | 8) && matches!(subscriber[0], b'2'..=b'8');
    right.then_some(area)
}

/// North American: area code and exchange begin with 2 to 9, neither is a service (N11).
fn is_nanp(digits: &[u8]) -> bool {
    let part = |at: usize| (b'2'..=b'9').contains(&digits[at]) && !(digits[at + 1] == b'1' && digits[at + 2] == b'1');
    digits.len() == 10 && part(0) && part(3) && !digits.starts_with(b"400") && digits[3..] != *b"5555555"
}

/// Whether `run` is a telephone number.
pub(crate) fn judge(run: &Run, around: &Context<'_>) -> Option<Verdict> {
    let digits = run.digits();
    if !(7..=16).contains(&digits.len()) {
        return None;
    }
    let phone = |rule, base: i32| Some(Verdict { kind: Kind::Phone, rule, score: base });
    let moves = |base: i32| base + around.near().moves(&[Topic::Phone]);
    if around.before == b'+' || around.prefix_00(digits) {
        let found = international(run, around);
        if found.is_some() || around.before == b'+' {
            return found;
        }
    }
    if around.is_amount() {
        return None;
    }
    // 86 without its plus; the prefix is a group of its own, or part of the only one.
    let with_code =
        digits.strip_prefix(b"86").or_else(|| digits.strip_prefix(b"086")).filter(|rest| is_cn_mobile(rest));
    if with_code.is_some() && (run.groups == 1 || (run.shape[0] <= 3 && is_cn_mobile_shape(run, 1))) {
        return phone("cn_mobile", moves(60));
    }
    if is_cn_mobile(digits) && is_cn_mobile_shape(run, 0) && !around.is_listed() {
        let base = match run.join {
            Join::None => 58,
            // A line that ends inside a number: two numbers of a table look the same.
            Join::Wrapped => 30,
            _ if run.shape() == [3, 4, 4] || run.shape() == [3, 3, 5] => 75,
            _ if run.one_by_one() => 55,
            _ => 35,
        };
        return phone("cn_mobile", moves(base));
    }
    // One of several in a row, if a word names them.
    if is_cn_mobile(digits) && run.shape() == [3, 4, 4] {
        return phone("cn_mobile", moves(45));
    }
    // An extension behind it.
    let extension = match run.shape() {
        [3 | 4, 7 | 8, extension @ 1..=5] => usize::from(*extension),
        _ => 0,
    };
    if let Some(area) = is_cn_landline(&digits[..digits.len() - extension]) {
        let split = run.groups > 1 && usize::from(run.shape[0]) == area;
        let base = match run.shape() {
            [_, 7 | 8] | [_, 7 | 8, 1..=5] | [_, 4, 4] | [_, 3, 4] | [_, 4, 3] if split && !around.is_listed() => 65,
            [_] => 25,
            _ => 0,
        };
        if base > 0 {
            return phone("cn_landline", moves(base));
        }
    }
    let local = digits.strip_prefix(b"1").filter(|rest| rest.len() == 10 && run.groups > 1).unwrap_or(digits);
    if is_nanp(local) {
        let skip = usize::from(local.len() < digits.len());
        let base = match &run.shape()[skip.min(run.groups)..] {
            _ if around.is_listed() => 10,
            [3, 3, 4] if around.before == b'(' || skip > 0 => 70,
            // `415 555-2671`; a dot and a hyphen are a clause's.
            [3, 3, 4] if run.join == Join::Mixed && around.text().get(run.start + 3) != Some(&b' ') => 25,
            [3, 3, 4] => 60,
            [3, 7] | [6, 4] => 25,
            [10] => 20,
            _ if run.one_by_one() => 25,
            _ => 0,
        };
        if base > 0 {
            return phone("nanp", moves(base));
        }
    }
    // Any other number that is called a phone: national forms begin with a zero or stand in groups.
    let plausible = (digits[0] == b'0' && (9..=12).contains(&digits.len()))
        || (run.groups > 1 && run.groups < 7 && (8..=13).contains(&digits.len()));
    let years =
        run.shape() == [4, 4] && matches!(&digits[..2], b"19" | b"20") && matches!(&digits[4..6], b"19" | b"20");
    if !plausible || years || run.join == Join::Wrapped || is_date_like(run) {
        return None;
    }
    let ahead = around.ahead();
    let named = ahead.distance(Topic::Phone) <= 16 && ahead.moves(&[Topic::Phone]) > 0;
    named.then_some(Verdict { kind: Kind::Phone, rule: "national", score: 55 })
}

/// Four digits, two and two: a date.
fn is_date_like(run: &Run) -> bool {
    matches!(
        run.shape(),
        [4, 2, 2, ..]
            | [2, 2, 4, ..]
            | [1, 2, 4, ..]
            | [2, 1, 4, ..]
            | [1, 1, 4, ..]
            | [4, 1, 2, ..]
            | [4, 1, 1, ..]
            | [4, 2, 1, ..]
    )
}

/// With a plus or the exit code before it.
fn international(run: &Run, around: &Context<'_>) -> Option<Verdict> {
    let digits = run.digits();
    let digits = if around.before == b'+' { digits } else { &digits[2..] };
    let code = country_code(digits);
    if code == 0 || !(8..=15).contains(&digits.len()) || around.is_amount_after() {
        return None;
    }
    let (rule, certain) = match &digits[..code] {
        b"86" => ("cn", is_cn_mobile(&digits[2..]) || (9..=11).contains(&digits[2..].len())),
        b"1" => ("nanp", is_nanp(&digits[1..])),
        _ => ("e164", digits.len() >= 10),
    };
    let base = match (certain, around.before == b'+') {
        (true, true) => 85,
        // The exit code before a mobile number of China; before others it may be a row of zeros.
        (true, false) if digits.starts_with(b"861") => 60,
        (true, false) => 35,
        (false, true) => 30,
        (false, false) => 0,
    };
    let score = base + around.near().moves(&[Topic::Phone]).max(if certain { -20 } else { -35 });
    Some(Verdict { kind: Kind::Phone, rule, score })
}
