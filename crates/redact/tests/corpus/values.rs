//! Values of every kind, made from dice, with check digits computed here and not by the room: two who
//! misread a standard in the same way would find each other right.

use tidegate_base::Prng;
use tidegate_redact::kind::Kind;

pub(crate) fn digits(dice: &mut Prng, count: usize) -> String {
    (0..count).map(|_| char::from(b'0' + dice.below(10) as u8)).collect()
}

fn letters(dice: &mut Prng, among: &str, count: usize) -> String {
    let among: Vec<char> = among.chars().collect();
    (0..count).filter_map(|_| dice.pick(&among).copied()).collect()
}

fn one<'a>(dice: &mut Prng, of: &[&'a str]) -> &'a str {
    dice.pick(of).copied().unwrap_or_default()
}

fn value(c: char) -> u32 {
    c.to_digit(36).unwrap_or(0)
}

/// The digit that makes `body` pass Luhn.
fn luhn(body: &str) -> u32 {
    (0..10)
        .find(|check| {
            let all: Vec<u32> = format!("{body}{check}").chars().map(value).collect();
            let sum: u32 = all
                .iter()
                .rev()
                .enumerate()
                .map(|(at, d)| if at % 2 == 1 { [0, 2, 4, 6, 8, 1, 3, 5, 7, 9][*d as usize] } else { *d })
                .sum();
            sum.is_multiple_of(10)
        })
        .unwrap_or(0)
}

fn weighted(text: &str, weights: &[u32]) -> u32 {
    text.chars().zip(weights).map(|(c, w)| value(c) * w).sum()
}

pub(crate) fn mobile(dice: &mut Prng) -> String {
    let head = ["13", "15", "17", "18", "19"];
    one(dice, &head).to_owned() + &digits(dice, 9)
}

pub(crate) fn landline(dice: &mut Prng) -> String {
    let area = one(dice, &["010", "021", "0755", "0571", "028", "0371", "0898"]).to_owned();
    let first = dice.between(2, 8).to_string();
    format!("{area}-{first}{}", digits(dice, if area.len() == 3 { 7 } else { 6 }))
}

pub(crate) fn nanp(dice: &mut Prng) -> (String, String, String) {
    let part = |dice: &mut Prng| format!("{}{}{}", dice.between(2, 9), dice.between(0, 9), dice.between(2, 9));
    (part(dice), part(dice), digits(dice, 4))
}

pub(crate) fn e164(dice: &mut Prng) -> String {
    let (code, rest) = *dice
        .pick(&[
            ("44", 10),
            ("49", 11),
            ("33", 9),
            ("81", 10),
            ("91", 10),
            ("65", 8),
            ("852", 8),
            ("61", 9),
            ("55", 11),
            ("971", 9),
        ])
        .unwrap_or(&("44", 10));
    let first = dice.between(2, 9).to_string();
    let rest = first + &digits(dice, rest - 1);
    let (a, b) = rest.split_at(rest.len() / 2);
    one(dice, &["+C AB", "+CAB", "+C A B", "+C-A-B"]).replace('C', code).replace('A', a).replace('B', b)
}

pub(crate) fn email(dice: &mut Prng) -> String {
    let name =
        one(dice, &["li.wei", "zhang_san", "j.smith", "anna", "kontakt", "x99", "mary-ann", "o.brien+news", "wangxm"]);
    let host = one(
        dice,
        &[
            "example.com",
            "qq.com",
            "163.com",
            "mail.corp.cn",
            "gmail.com",
            "uni-bonn.de",
            "firma.co.uk",
            "startup.io",
            "proton.me",
        ],
    );
    format!("{name}{}@{host}", if dice.chance(0.5) { dice.below(999).to_string() } else { String::new() })
}

pub(crate) fn card(dice: &mut Prng) -> String {
    let (head, len) = *dice
        .pick(&[
            ("4", 16),
            ("51", 16),
            ("54", 16),
            ("2221", 16),
            ("37", 15),
            ("34", 15),
            ("6011", 16),
            ("3530", 16),
            ("36", 14),
        ])
        .unwrap_or(&("4", 16));
    let body = format!("{head}{}", digits(dice, len - head.len() - 1));
    format!("{body}{}", luhn(&body))
}

pub(crate) fn bank_card(dice: &mut Prng) -> String {
    let head = one(dice, &["622202", "621700", "623668", "622848", "625912"]);
    let len = if dice.chance(0.6) { 19 } else { 16 };
    let body = format!("{head}{}", digits(dice, len - 7));
    format!("{body}{}", luhn(&body))
}

pub(crate) fn in_fours(number: &str, by: &str) -> String {
    let groups: Vec<&[u8]> = number.as_bytes().chunks(4).collect();
    groups.iter().map(|group| String::from_utf8_lossy(group).into_owned()).collect::<Vec<_>>().join(by)
}

pub(crate) fn iban(dice: &mut Prng) -> String {
    let (country, form) = *dice
        .pick(&[
            ("DE", "nnnnnnnnnnnnnnnnnn"),
            ("GB", "aaaannnnnnnnnnnnnn"),
            ("FR", "nnnnnnnnnncccccccccccnn"),
            ("NL", "aaaannnnnnnnnn"),
            ("ES", "nnnnnnnnnnnnnnnnnnnn"),
            ("CH", "nnnnncccccccccccc"),
        ])
        .unwrap_or(&("DE", ""));
    let body: String = form
        .chars()
        .map(|c| match c {
            'n' => digits(dice, 1),
            'a' => letters(dice, "ABCDEFGHIJKLMNOPQRSTUVWXYZ", 1),
            _ => letters(dice, "ABCDEFGHJK0123456789", 1),
        })
        .collect();
    let check = (2..99).find(|check| {
        let all = format!("{body}{country}{check:02}");
        let number: String = all.chars().map(|c| value(c).to_string()).collect();
        number.chars().fold(0, |rest, c| (rest * 10 + value(c)) % 97) == 1
    });
    format!("{country}{:02}{body}", check.unwrap_or(0))
}

pub(crate) fn ip(dice: &mut Prng) -> String {
    if dice.chance(0.3) {
        let group = |dice: &mut Prng| format!("{:x}", dice.between(1, 0xffff));
        let tail: Vec<String> = (0..3).map(|_| group(dice)).collect();
        return one(dice, &["2001:db8:H", "240e:3b7::H", "2606:4700:4700::H"])
            .replace('H', &tail.join(":"))
            .replace("2001:db8:", "2001:db8::");
    }
    let first = *dice.pick(&[8, 47, 101, 114, 183, 203, 52, 91]).unwrap_or(&8);
    format!("{first}.{}.{}.{}", dice.between(40, 250), dice.between(40, 250), dice.between(1, 254))
}

pub(crate) fn resident(dice: &mut Prng) -> String {
    let area = one(dice, &["110105", "310101", "440305", "510107", "330106", "420111", "820000"]);
    let body = format!(
        "{area}{}{:02}{:02}{}",
        dice.between(1940, 2015),
        dice.between(1, 12),
        dice.between(1, 28),
        digits(dice, 3)
    );
    // Weights are powers of two, modulo eleven.
    let sum: u32 = body.chars().enumerate().map(|(at, c)| value(c) * (2u32.pow(17 - at as u32) % 11)).sum();
    let check = (12 - sum % 11) % 11;
    format!("{body}{}", if check == 10 { "X".to_owned() } else { check.to_string() })
}

pub(crate) fn credit_code(dice: &mut Prng) -> String {
    const SIGNS: &str = "0123456789ABCDEFGHJKLMNPQRTUWXY";
    let head = one(dice, &["91", "92", "93", "52", "12"]);
    let body = format!("{head}{}{}", one(dice, &["110108", "310115", "440300", "330100"]), letters(dice, SIGNS, 9));
    let mut weight = 1;
    let mut sum = 0;
    for c in body.chars() {
        sum += SIGNS.find(c).unwrap_or(0) * weight;
        weight = weight * 3 % 31;
    }
    format!("{body}{}", &SIGNS[(31 - sum % 31) % 31..][..1])
}

pub(crate) fn ssn(dice: &mut Prng) -> String {
    let area = *dice.pick(&[212, 318, 415, 536, 612, 721]).unwrap_or(&212);
    format!("{area}-{:02}-{:04}", dice.between(1, 99), dice.between(1, 9999))
}

/// A national number in its own country's writing, with the word that goes with it.
pub(crate) fn national(dice: &mut Prng) -> (&'static str, String) {
    match dice.below(12) {
        0 => {
            let n = dice.between(10_000_000, 99_999_999);
            ("DNI", format!("{n}{}", &"TRWAGMYFPDXBNJZSQVHLCKE"[(n % 23) as usize..][..1]))
        }
        1 => {
            let mut id = digits(dice, 9);
            for top in [10, 11] {
                let weights: Vec<u32> = (2..=top).rev().collect();
                let rest = weighted(&id, &weights) * 10 % 11;
                id.push_str(&(rest % 10).to_string());
            }
            ("CPF", format!("{}.{}.{}-{}", &id[..3], &id[3..6], &id[6..9], &id[9..]))
        }
        2 => {
            let body = format!(
                "{:02}{:02}{:02}{}",
                dice.between(40, 99),
                dice.between(1, 12),
                dice.between(1, 28),
                digits(dice, 4)
            );
            let check = (10 - weighted(&body, &[1, 3, 7, 9, 1, 3, 7, 9, 1, 3]) % 10) % 10;
            ("PESEL", format!("{body}{check}"))
        }
        3 => {
            let body = format!(
                "{:02}{:02}{:02}{}",
                dice.between(40, 99),
                dice.between(1, 12),
                dice.between(1, 28),
                digits(dice, 3)
            );
            ("personnummer", format!("{}-{}{}", &body[..6], &body[6..], luhn(&body)))
        }
        4 => {
            let body = digits(dice, 7);
            let sum = weighted(&body, &[2, 7, 6, 5, 4, 3, 2]);
            ("NRIC", format!("S{body}{}", &"JZIHGFEDCBA"[(sum % 11) as usize..][..1]))
        }
        5 => {
            let body = format!(
                "{:02}{:02}{:02}{}{}",
                dice.between(40, 99),
                dice.between(1, 12),
                dice.between(1, 28),
                dice.between(1, 2),
                digits(dice, 5)
            );
            let check = (11 - weighted(&body, &[2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5]) % 11) % 10;
            ("주민등록번호", format!("{}-{}{check}", &body[..6], &body[6..]))
        }
        6 => {
            let body = format!(
                "{}{:02}{:02}{}",
                dice.between(1, 2),
                dice.between(40, 99),
                dice.between(1, 12),
                digits(dice, 8)
            );
            let key = 97 - body.parse::<u64>().unwrap_or(0) % 97;
            ("numéro de sécurité sociale", format!("{body}{key:02}"))
        }
        7 => {
            let body = digits(dice, 8);
            let id = (0..10).map(|c| format!("{body}{c}")).find(|id| {
                let sum: i64 = id.chars().zip([9, 8, 7, 6, 5, 4, 3, 2, -1]).map(|(c, w)| i64::from(value(c)) * w).sum();
                sum % 11 == 0
            });
            ("BSN", id.unwrap_or_else(|| "111222333".to_owned()))
        }
        8 => {
            let body = dice.between(5_000_000, 24_999_999).to_string();
            let sum: u32 =
                body.chars().rev().zip([2u32, 3, 4, 5, 6, 7].into_iter().cycle()).map(|(c, w)| value(c) * w).sum();
            let check = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "K"][((11 - sum % 11) % 11) as usize];
            ("RUT", format!("{body}-{check}"))
        }
        9 => {
            let body = format!("{}{}", dice.between(1, 7), digits(dice, 7));
            ("SIN", {
                let d = format!("{body}{}", luhn(&body));
                format!("{} {} {}", &d[..3], &d[3..6], &d[6..])
            })
        }
        10 => (
            "NI number",
            format!(
                "{}{}{}",
                letters(dice, "ABCEGHJKLMNPRSTWXY", 1),
                letters(dice, "ACEHJKLMPRSTWXY", 1),
                digits(dice, 6)
            ) + &letters(dice, "ABCD", 1),
        ),
        _ => {
            let head = format!("{}{}{}", letters(dice, "ABCDEFGH", 1), dice.between(1, 2), digits(dice, 7));
            let letter = 10 + value(head.chars().next().unwrap_or('A')) - 10;
            let sum = letter / 10 + letter % 10 * 9 + weighted(&head[1..], &[8, 7, 6, 5, 4, 3, 2, 1]);
            ("身分證", format!("{head}{}", (10 - sum % 10) % 10))
        }
    }
}

pub(crate) fn secret(dice: &mut Prng) -> String {
    const ALNUM: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    const UPPER: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    const HEX: &str = "0123456789abcdef";
    match dice.below(12) {
        0 => format!("sk-proj-{}", letters(dice, ALNUM, 48)),
        1 => format!("sk-ant-api03-{}-{}", letters(dice, ALNUM, 60), letters(dice, ALNUM, 8)),
        2 => format!("AKIA{}", letters(dice, UPPER, 16)),
        3 => format!("ghp_{}", letters(dice, ALNUM, 36)),
        4 => format!("glpat-{}", letters(dice, ALNUM, 20)),
        5 => format!("xoxb-{}-{}-{}", digits(dice, 12), digits(dice, 12), letters(dice, ALNUM, 24)),
        6 => format!("AIza{}", letters(dice, ALNUM, 35)),
        7 => format!("sk_live_{}", letters(dice, ALNUM, 24)),
        8 => format!("hf_{}", letters(dice, ALNUM, 34)),
        9 => format!("LTAI{}", letters(dice, ALNUM, 20)),
        10 => format!("sk-{}", letters(dice, HEX, 32)),
        _ => format!("npm_{}", letters(dice, ALNUM, 36)),
    }
}

pub(crate) fn jwt(dice: &mut Prng) -> String {
    const URL: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    format!("eyJhbGciOiJSUzI1NiJ9.eyJ{}.{}", letters(dice, URL, 60), letters(dice, URL, 86))
}

pub(crate) fn private_key(dice: &mut Prng) -> String {
    let lines: Vec<String> = (0..6).map(|_| letters(dice, "ABCDEFabcdef0123456789+/", 64)).collect();
    let title = one(dice, &["RSA PRIVATE KEY", "PRIVATE KEY", "EC PRIVATE KEY", "OPENSSH PRIVATE KEY"]);
    format!("-----BEGIN {title}-----\n{}\n-----END {title}-----", lines.join("\n"))
}

pub(crate) fn password(dice: &mut Prng) -> String {
    letters(dice, "abcdefgXYZ0123456789!$*-_", 12)
}

pub(crate) fn passport(dice: &mut Prng) -> String {
    letters(dice, "EGDSPH", 1) + &digits(dice, 8)
}

pub(crate) fn plate(dice: &mut Prng) -> String {
    let sign = letters(dice, "京沪粤苏浙川鄂湘", 1) + &letters(dice, "ABCDEFG", 1);
    if dice.chance(0.3) {
        sign + &letters(dice, "DF", 1) + &digits(dice, 5)
    } else {
        sign + &letters(dice, "ABCDEFGHJKLMNPQRSTUVWXYZ", 1) + &digits(dice, 4)
    }
}

/// A value of `kind`, with the word that goes with it.
pub(crate) fn of(dice: &mut Prng, kind: Kind) -> (&'static str, String) {
    match kind {
        Kind::Phone => match dice.below(4) {
            0 => ("手机", mobile(dice)),
            1 => ("电话", landline(dice)),
            2 => {
                let (a, b, c) = nanp(dice);
                (
                    "phone",
                    one(dice, &["(A) B-C", "A-B-C", "A.B.C", "+1 A B C", "A B C"])
                        .replace('A', &a)
                        .replace('B', &b)
                        .replace('C', &c),
                )
            }
            _ => ("tel", e164(dice)),
        },
        Kind::Email => ("mail", email(dice)),
        Kind::Card => ("card", card(dice)),
        Kind::BankCard => ("银行卡", bank_card(dice)),
        Kind::Iban => ("IBAN", iban(dice)),
        Kind::Ip => ("from", ip(dice)),
        Kind::ResidentId => ("身份证号", resident(dice)),
        Kind::CreditCode => ("统一社会信用代码", credit_code(dice)),
        Kind::Ssn => ("SSN", ssn(dice)),
        Kind::NationalId => national(dice),
        Kind::Secret => ("key", secret(dice)),
        Kind::PrivateKey => ("key", private_key(dice)),
        Kind::Jwt => ("Bearer", jwt(dice)),
        Kind::Password => ("db", password(dice)),
        Kind::Passport => ("护照", passport(dice)),
        Kind::Plate => ("车牌", plate(dice)),
        Kind::Name | Kind::Address | Kind::Custom => ("", String::new()),
    }
}
