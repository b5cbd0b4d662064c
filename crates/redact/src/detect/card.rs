//! Payment cards and Chinese bank cards: issuer, length, Luhn, and a regular way of writing.
//!
//! One in ten numbers passes Luhn, so the issuer's range and the groups have to be right as well.
//! Thirteen digits are left alone without a word: they are timestamps and barcodes.

use super::cluster::{Join, Run};
use super::cue::Topic;
use super::number::{Context, Verdict};
use crate::checks;
use crate::kind::Kind;

/// What the first digits say of the issuer, and whether that length is its.
fn issuer(digits: &[u8]) -> Option<&'static str> {
    let head = checks::number(&digits[..6]);
    let len = digits.len();
    Some(match head {
        620_000..=629_999 if (16..=19).contains(&len) => "unionpay",
        400_000..=499_999 if matches!(len, 13 | 16 | 19) => "visa",
        510_000..=559_999 | 222_100..=272_099 if len == 16 => "mastercard",
        340_000..=349_999 | 370_000..=379_999 if len == 15 => "amex",
        300_000..=305_999 | 360_000..=369_999 | 380_000..=399_999 if len == 14 => "diners",
        601_100..=601_199 | 644_000..=659_999 if (16..=19).contains(&len) => "discover",
        352_800..=358_999 if (16..=19).contains(&len) => "jcb",
        220_000..=220_499 if (16..=19).contains(&len) => "mir",
        955_880..=955_889 if len == 19 => "unionpay",
        500_000..=509_999 | 560_000..=589_999 | 630_000..=639_999 | 670_000..=679_999 if (12..=19).contains(&len) => {
            "maestro"
        }
        600_000..=609_999 | 810_000..=829_999 if len == 16 => "rupay",
        _ => return None,
    })
}

/// Whether the groups are those of a card.
fn is_regular(run: &Run) -> bool {
    match run.shape() {
        [_] => true,
        _ if run.join == Join::Wrapped => true,
        [8, 8]
        | [4, 4, 8]
        | [8, 4, 4]
        | [4, 8, 4]
        | [4, 12]
        | [12, 4]
        | [4, 4, 4, 4]
        | [4, 4, 4, 4, 1..=3]
        | [4, 6, 4 | 5]
        | [6, 10 | 13]
        | [4, 4, 4, 7] => run.join == Join::Regular,
        _ => run.one_by_one(),
    }
}

/// Whether `run` is a card.
pub(crate) fn judge(run: &Run, around: &Context<'_>) -> Option<Verdict> {
    let digits = run.digits();
    if !(12..=19).contains(&digits.len())
        || !is_regular(run)
        || around.is_listed()
        || around.is_tail()
        || !checks::luhn(digits)
    {
        return None;
    }
    if digits.windows(2).all(|pair| pair[0] == pair[1]) || around.is_amount() {
        return None;
    }
    let near = around.near();
    let moves = near.moves(&[Topic::Card, Topic::Account]);
    let kind_of = |rule: &str| if rule == "unionpay" { Kind::BankCard } else { Kind::Card };
    match issuer(digits) {
        Some(rule @ ("maestro" | "rupay")) => Some(Verdict { kind: Kind::Card, rule, score: 30 + moves }),
        Some(rule) => {
            let base = match run.shape() {
                _ if digits.len() == 13 => 20,
                [_] if digits.len() == 14 => 52,
                [_] => 58,
                _ if run.join == Join::Wrapped => 45,
                _ => 75,
            };
            Some(Verdict { kind: kind_of(rule), rule, score: base + moves })
        }
        // A bank of its own numbering, if a word says that it is an account.
        None if digits.len() >= 16 && moves > 0 && near.has(Topic::Account) => {
            Some(Verdict { kind: Kind::BankCard, rule: "account", score: 55 })
        }
        None => None,
    }
}
