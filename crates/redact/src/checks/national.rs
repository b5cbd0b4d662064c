//! National numbers, country by country: the rule of each in a few lines.

use super::{are_digits, d, is_date, luhn, number, verhoeff, weighted};

/// ISO 7064, mod 11,10: the German tax number.
fn mod_11_10(digits: &[u8]) -> bool {
    let mut product = 10;
    for b in &digits[..digits.len() - 1] {
        let sum = (u32::from(b - b'0') + product) % 10;
        product = (if sum == 0 { 10 } else { sum }) * 2 % 11;
    }
    (11 - product) % 10 == d(digits, digits.len() - 1)
}

/// Whether six digits are a day with a year of two digits, in some century.
fn is_short_date(year: &[u8], month: &[u8], day: &[u8]) -> bool {
    is_date(2000 + number(year), number(month), number(day))
}

/// Spain: DNI, and NIE with its first letter.
pub(crate) fn es_dni(id: &[u8]) -> bool {
    let first = match id.first().map(u8::to_ascii_uppercase) {
        Some(letter @ b'X'..=b'Z') => letter - b'X' + b'0',
        Some(digit @ b'0'..=b'9') => digit,
        _ => return false,
    };
    if id.len() != 9 || !are_digits(&id[1..8], 7) {
        return false;
    }
    let value = u64::from(first - b'0') * 10_000_000 + number(&id[1..8]);
    b"TRWAGMYFPDXBNJZSQVHLCKE"[(value % 23) as usize] == id[8].to_ascii_uppercase()
}

/// Italy: codice fiscale, with letters for digits where two people would share one.
pub(crate) fn it_codice_fiscale(id: &[u8]) -> bool {
    const ODD: [u32; 26] =
        [1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23];
    let id: Vec<u8> = id.iter().map(u8::to_ascii_uppercase).collect();
    let is_digit = |b: u8| b.is_ascii_digit() || b"LMNPQRSTUV".contains(&b);
    let form = id.len() == 16
        && id.iter().enumerate().all(|(at, b)| match at {
            0..=5 | 11 | 15 => b.is_ascii_uppercase(),
            8 => b"ABCDEHLMPRST".contains(b),
            _ => is_digit(*b),
        });
    if !form {
        return false;
    }
    let value = |b: u8| u32::from(if b.is_ascii_digit() { b - b'0' } else { b - b'A' });
    let sum: u32 =
        id[..15].iter().enumerate().map(|(at, b)| if at % 2 == 0 { ODD[value(*b) as usize] } else { value(*b) }).sum();
    id[15] == b'A' + (sum % 26) as u8
}

/// France: numéro de sécurité sociale, 13 digits and the key; Corsica with its letters.
pub(crate) fn fr_nir(id: &[u8]) -> bool {
    if id.len() != 15 || !matches!(id[0], b'1' | b'2') {
        return false;
    }
    let mut digits = id.to_vec();
    let corsica = match &id[5..7] {
        b"2A" | b"2a" => 19,
        b"2B" | b"2b" => 18,
        _ => 0,
    };
    if corsica > 0 {
        digits[5] = b'1';
        digits[6] = b'0' + corsica as u8 % 10;
    }
    let month = number(&digits[3..5]);
    are_digits(&digits, 15)
        && (matches!(month, 1..=12 | 20..=42 | 50..=99))
        && 97 - number(&digits[..13]) % 97 == number(&digits[13..])
}

/// Germany: Steuer-Identifikationsnummer. Of its first ten digits one comes two or three times.
pub(crate) fn de_tax(id: &[u8]) -> bool {
    if !are_digits(id, 11) || id[0] == b'0' {
        return false;
    }
    let mut counts = [0u8; 10];
    id[..10].iter().for_each(|b| counts[usize::from(b - b'0')] += 1);
    let repeated = counts.iter().filter(|n| **n > 1).count();
    repeated == 1 && counts.iter().all(|n| *n <= 3) && mod_11_10(id)
}

/// Netherlands: burgerservicenummer, the test of eleven.
pub(crate) fn nl_bsn(id: &[u8]) -> bool {
    are_digits(id, 9)
        && number(id) > 0
        && (weighted(id, &[9, 8, 7, 6, 5, 4, 3, 2]) + 11 * 9 - d(id, 8)).is_multiple_of(11)
}

/// Belgium: rijksregisternummer; a 2 stands before it for whom the century is this.
pub(crate) fn be_register(id: &[u8]) -> bool {
    if !are_digits(id, 11) || number(&id[2..4]) % 20 > 12 || number(&id[4..6]) > 31 {
        return false;
    }
    let (body, check) = (number(&id[..9]), number(&id[9..]));
    check == 97 - body % 97 || check == 97 - (body + 2_000_000_000) % 97
}

/// Poland: PESEL. The century stands in the month.
pub(crate) fn pl_pesel(id: &[u8]) -> bool {
    are_digits(id, 11)
        && (1..=12).contains(&(number(&id[2..4]) % 20))
        && (1..=31).contains(&number(&id[4..6]))
        && weighted(id, &[1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1]).is_multiple_of(10)
}

/// Portugal: NIF.
pub(crate) fn pt_nif(id: &[u8]) -> bool {
    are_digits(id, 9) && id[0] != b'0' && (11 - weighted(id, &[9, 8, 7, 6, 5, 4, 3, 2]) % 11) % 11 % 10 == d(id, 8)
}

/// Sweden: personnummer of ten digits; a coordination number's day is 60 more.
pub(crate) fn se_person(id: &[u8]) -> bool {
    let day = |id: &[u8]| number(&id[4..6]) % 60;
    are_digits(id, 10) && (1..=12).contains(&number(&id[2..4])) && (1..=31).contains(&day(id)) && luhn(id)
}

/// Finland: henkilötunnus, the sign of its century included.
pub(crate) fn fi_hetu(id: &[u8]) -> bool {
    if id.len() != 11 || !are_digits(&id[..6], 6) || !are_digits(&id[7..10], 3) {
        return false;
    }
    let sign = b"+-ABCDEFUVWXY".contains(&id[6].to_ascii_uppercase());
    let rest = (number(&id[..6]) * 1000 + number(&id[7..10])) % 31;
    sign && is_short_date(&id[4..6], &id[2..4], &id[..2])
        && b"0123456789ABCDEFHJKLMNPRSTUVWXY"[rest as usize] == id[10].to_ascii_uppercase()
}

/// Norway: fødselsnummer.
pub(crate) fn no_birth(id: &[u8]) -> bool {
    are_digits(id, 11)
        && (1..=31).contains(&(number(&id[..2]) % 40))
        && (1..=12).contains(&number(&id[2..4]))
        && weighted(id, &[3, 7, 6, 1, 8, 9, 4, 5, 2, 1]).is_multiple_of(11)
        && weighted(id, &[5, 4, 3, 2, 7, 6, 5, 4, 3, 2, 1]).is_multiple_of(11)
}

/// Canada: social insurance number.
pub(crate) fn ca_sin(id: &[u8]) -> bool {
    are_digits(id, 9) && !matches!(id[0], b'0' | b'8') && luhn(id)
}

/// United Kingdom: national insurance number. No check digit; letters never given out.
pub(crate) fn gb_nino(id: &[u8]) -> bool {
    let id: Vec<u8> = id.iter().map(u8::to_ascii_uppercase).collect();
    id.len() == 9
        && id[0].is_ascii_uppercase()
        && id[1].is_ascii_uppercase()
        && are_digits(&id[2..8], 6)
        && matches!(id[8], b'A'..=b'D')
        && !b"DFIQUV".contains(&id[0])
        && !b"DFIQUVO".contains(&id[1])
        && !matches!(&id[..2], b"BG" | b"GB" | b"NK" | b"KN" | b"TN" | b"NT" | b"ZZ")
}

/// United Kingdom: NHS number.
pub(crate) fn gb_nhs(id: &[u8]) -> bool {
    are_digits(id, 10) && (11 - weighted(id, &[10, 9, 8, 7, 6, 5, 4, 3, 2]) % 11) % 11 == d(id, 9)
}

/// Ireland: PPS number, with one letter after its check letter, or none.
pub(crate) fn ie_pps(id: &[u8]) -> bool {
    if !(8..=9).contains(&id.len()) || !are_digits(&id[..7], 7) {
        return false;
    }
    let second = id.get(8).map_or(0, |b| match b.to_ascii_uppercase() {
        b'W' => 0,
        letter => u32::from(letter.wrapping_sub(b'A')) + 1,
    });
    let sum = weighted(id, &[8, 7, 6, 5, 4, 3, 2]) + second * 9;
    second <= 26 && b"WABCDEFGHIJKLMNOPQRSTUV"[(sum % 23) as usize] == id[7].to_ascii_uppercase()
}

/// Switzerland: AHV number, an EAN-13 of its own country code.
pub(crate) fn ch_ahv(id: &[u8]) -> bool {
    are_digits(id, 13)
        && id.starts_with(b"756")
        && weighted(id, &[1, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1]).is_multiple_of(10)
}

fn brazil(digits: &[u8], check: usize, top: u32) -> bool {
    // Weights go up from 2 beside the check digit, to `top` and round again.
    let sum: u32 = (0..check).map(|at| d(digits, at) * ((check - 1 - at) as u32 % (top - 1) + 2)).sum();
    let rest = sum % 11;
    d(digits, check) == if rest < 2 { 0 } else { 11 - rest }
}

fn all_equal(digits: &[u8]) -> bool {
    digits.windows(2).all(|pair| pair[0] == pair[1])
}

/// Brazil: CPF.
pub(crate) fn br_cpf(id: &[u8]) -> bool {
    are_digits(id, 11) && !all_equal(id) && brazil(id, 9, 12) && brazil(id, 10, 12)
}

/// Brazil: CNPJ.
pub(crate) fn br_cnpj(id: &[u8]) -> bool {
    are_digits(id, 14) && !all_equal(id) && brazil(id, 12, 9) && brazil(id, 13, 9)
}

/// Mexico: CURP.
pub(crate) fn mx_curp(id: &[u8]) -> bool {
    let id: Vec<u8> = id.iter().map(u8::to_ascii_uppercase).collect();
    let form = id.len() == 18
        && id.iter().enumerate().all(|(at, b)| match at {
            0..=3 | 11..=15 => b.is_ascii_uppercase(),
            4..=9 | 17 => b.is_ascii_digit(),
            10 => matches!(b, b'H' | b'M' | b'X'),
            _ => b.is_ascii_alphanumeric(),
        });
    // The alphabet has an Ñ between N and O, which no CURP contains.
    let value = |b: u8| {
        u32::from(match b {
            b'0'..=b'9' => b - b'0',
            b'A'..=b'N' => b - b'A' + 10,
            _ => b - b'A' + 11,
        })
    };
    form && is_short_date(&id[4..6], &id[6..8], &id[8..10]) && {
        let sum: u32 = id[..17].iter().enumerate().map(|(at, b)| value(*b) * (18 - at as u32)).sum();
        (10 - sum % 10) % 10 == d(&id, 17)
    }
}

/// Chile: RUT, seven or eight digits and the check character.
pub(crate) fn cl_rut(id: &[u8]) -> bool {
    let Some((check, body)) = id.split_last() else { return false };
    if !(7..=8).contains(&body.len()) || !body.iter().all(u8::is_ascii_digit) {
        return false;
    }
    let sum: u32 = body.iter().rev().enumerate().map(|(at, b)| u32::from(b - b'0') * (at as u32 % 6 + 2)).sum();
    b"0123456789K"[((11 - sum % 11) % 11) as usize] == check.to_ascii_uppercase()
}

/// Argentina: CUIT and CUIL.
pub(crate) fn ar_cuit(id: &[u8]) -> bool {
    are_digits(id, 11)
        && matches!(number(&id[..2]), 20 | 23 | 24 | 25..=27 | 30 | 33 | 34)
        && (11 - weighted(id, &[5, 4, 3, 2, 7, 6, 5, 4, 3, 2]) % 11) % 11 == d(id, 10)
}

/// India: Aadhaar.
pub(crate) fn in_aadhaar(id: &[u8]) -> bool {
    are_digits(id, 12) && id[0] >= b'2' && verhoeff(id)
}

/// India: PAN. Its last letter is a check whose rule is not public.
pub(crate) fn in_pan(id: &[u8]) -> bool {
    id.len() == 10
        && id[..5].iter().chain(&id[9..]).all(u8::is_ascii_uppercase)
        && are_digits(&id[5..9], 4)
        && b"ABCFGHLJPT".contains(&id[3])
}

/// South Korea: resident registration number, as given out until 2020.
pub(crate) fn kr_rrn(id: &[u8]) -> bool {
    are_digits(id, 13)
        && (1..=12).contains(&number(&id[2..4]))
        && (1..=31).contains(&number(&id[4..6]))
        && (11 - weighted(id, &[2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5]) % 11) % 10 == d(id, 12)
}

/// Japan: individual number.
pub(crate) fn jp_individual(id: &[u8]) -> bool {
    let rest = if are_digits(id, 12) { weighted(id, &[6, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2]) % 11 } else { return false };
    (if rest <= 1 { 0 } else { 11 - rest }) == d(id, 11)
}

/// Singapore: NRIC and FIN.
pub(crate) fn sg_nric(id: &[u8]) -> bool {
    if id.len() != 9 || !are_digits(&id[1..8], 7) {
        return false;
    }
    let sum = weighted(&id[1..], &[2, 7, 6, 5, 4, 3, 2]);
    let (more, letters) = match id[0].to_ascii_uppercase() {
        b'S' => (0, b"JZIHGFEDCBA"),
        b'T' => (4, b"JZIHGFEDCBA"),
        b'F' => (0, b"XWUTRQPNMLK"),
        b'G' => (4, b"XWUTRQPNMLK"),
        b'M' => (3, b"KLJNPQRTUWX"),
        _ => return false,
    };
    let at = (sum + more) % 11;
    letters[(if id[0].eq_ignore_ascii_case(&b'M') { 10 - at } else { at }) as usize] == id[8].to_ascii_uppercase()
}

/// Hong Kong: identity card, without its parentheses.
pub(crate) fn hk_id(id: &[u8]) -> bool {
    let letters = id.iter().take_while(|b| b.is_ascii_alphabetic()).count();
    if !(1..=2).contains(&letters) || id.len() != letters + 7 || !are_digits(&id[letters..letters + 6], 6) {
        return false;
    }
    let letter = |b: u8| u32::from(b.to_ascii_uppercase() - b'A') + 10;
    let (first, second) = if letters == 2 { (letter(id[0]), letter(id[1])) } else { (36, letter(id[0])) };
    let check = match id[letters + 6].to_ascii_uppercase() {
        b'A' => 10,
        digit @ b'0'..=b'9' => u32::from(digit - b'0'),
        _ => return false,
    };
    (first * 9 + second * 8 + weighted(&id[letters..], &[7, 6, 5, 4, 3, 2]) + check).is_multiple_of(11)
}

/// Taiwan: national identification number.
pub(crate) fn tw_id(id: &[u8]) -> bool {
    // The numbers of the letters A to Z.
    const LETTERS: [u32; 26] =
        [10, 11, 12, 13, 14, 15, 16, 17, 34, 18, 19, 20, 21, 22, 35, 23, 24, 25, 26, 27, 28, 29, 32, 30, 31, 33];
    if id.len() != 10
        || !id[0].is_ascii_alphabetic()
        || !are_digits(&id[1..], 9)
        || !matches!(id[1], b'1' | b'2' | b'8' | b'9')
    {
        return false;
    }
    let letter = LETTERS[usize::from(id[0].to_ascii_uppercase() - b'A')];
    (letter / 10 + letter % 10 * 9 + weighted(&id[1..], &[8, 7, 6, 5, 4, 3, 2, 1, 1])).is_multiple_of(10)
}

/// South Africa: identity number.
pub(crate) fn za_id(id: &[u8]) -> bool {
    are_digits(id, 13) && is_short_date(&id[..2], &id[2..4], &id[4..6]) && id[10] <= b'2' && luhn(id)
}

/// Turkey: T.C. kimlik numarası.
pub(crate) fn tr_kimlik(id: &[u8]) -> bool {
    if !are_digits(id, 11) || id[0] == b'0' {
        return false;
    }
    let odd: u32 = (0..9).step_by(2).map(|at| d(id, at)).sum();
    let even: u32 = (1..8).step_by(2).map(|at| d(id, at)).sum();
    (odd * 7 + 80 - even) % 10 == d(id, 9)
        && id[..10].iter().map(|b| u32::from(b - b'0')).sum::<u32>() % 10 == d(id, 10)
}

/// Australia: tax file number.
pub(crate) fn au_tfn(id: &[u8]) -> bool {
    are_digits(id, 9) && number(id) > 0 && weighted(id, &[1, 4, 3, 7, 5, 8, 6, 9, 10]).is_multiple_of(11)
}

/// Australia: Medicare card.
pub(crate) fn au_medicare(id: &[u8]) -> bool {
    are_digits(id, 10) && matches!(id[0], b'2'..=b'6') && weighted(id, &[1, 3, 7, 9, 1, 3, 7, 9]) % 10 == d(id, 8)
}
