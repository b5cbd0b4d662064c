//! Check digits: the arithmetic that tells a number from digits that look like one.
//!
//! Every function takes digits as ASCII, of the length its number has, and says whether they are
//! right; with another length the answer is no. The algorithms are those of the standards named
//! beside them; each is held to published examples, and every one refuses them with a digit changed.

mod national;

pub(crate) use national::{
    ar_cuit, au_medicare, au_tfn, be_register, br_cnpj, br_cpf, ca_sin, ch_ahv, cl_rut, de_tax, es_dni, fi_hetu,
    fr_nir, gb_nhs, gb_nino, hk_id, ie_pps, in_aadhaar, in_pan, it_codice_fiscale, jp_individual, kr_rrn, mx_curp,
    nl_bsn, no_birth, pl_pesel, pt_nif, se_person, sg_nric, tr_kimlik, tw_id, za_id,
};

/// The value of the digit at `at`.
fn d(digits: &[u8], at: usize) -> u32 {
    u32::from(digits[at].wrapping_sub(b'0'))
}

fn are_digits(digits: &[u8], len: usize) -> bool {
    digits.len() == len && digits.iter().all(u8::is_ascii_digit)
}

/// The sum of the first digits, each times its weight.
fn weighted(digits: &[u8], weights: &[u32]) -> u32 {
    digits.iter().zip(weights).map(|(b, w)| u32::from(b.wrapping_sub(b'0')) * w).sum()
}

/// Decimal digits as a number.
pub(crate) fn number(digits: &[u8]) -> u64 {
    digits.iter().fold(0, |n: u64, b| n.wrapping_mul(10).wrapping_add(u64::from(b.wrapping_sub(b'0'))))
}

/// Luhn (ISO/IEC 7812-1): payment cards, SIN, personnummer, and others.
pub(crate) fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(at, b)| {
            let digit = u32::from(b.wrapping_sub(b'0'));
            if at % 2 == 0 { digit } else { digit * 2 / 10 + digit * 2 % 10 }
        })
        .sum();
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) && sum.is_multiple_of(10)
}

/// Verhoeff (1969): Aadhaar.
pub(crate) fn verhoeff(digits: &[u8]) -> bool {
    // The dihedral group of the pentagon, and the permutation of each place.
    let product = |a: u32, b: u32| match (a < 5, b < 5) {
        (true, true) => (a + b) % 5,
        (true, false) => 5 + (a + b - 5) % 5,
        (false, true) => 5 + (a - 5 + 5 - b) % 5,
        (false, false) => (a + 5 - b) % 5,
    };
    const PLACE: [u32; 10] = [1, 5, 7, 6, 2, 8, 3, 0, 9, 4];
    let permuted = |times: usize, digit: u32| (0..times % 8).fold(digit, |x, _| PLACE[x as usize]);
    digits.iter().all(u8::is_ascii_digit)
        && digits.iter().rev().enumerate().fold(0, |sum, (at, b)| product(sum, permuted(at, u32::from(b - b'0')))) == 0
}

/// Whether it is a day of the Gregorian calendar.
pub(crate) fn is_date(year: u64, month: u64, day: u64) -> bool {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days = match month {
        2 => 28 + u64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => 0,
    };
    (1..=days).contains(&day)
}

/// IBAN (ISO 13616): country, its length, mod 97 of the rearranged text is 1.
pub(crate) fn iban(text: &[u8]) -> bool {
    let valid = text.len() >= 15 && text.len() <= 34 && text.iter().all(u8::is_ascii_alphanumeric);
    if !valid || iban_length(&text[..2]) != Some(text.len()) {
        return false;
    }
    let value = |sum: u32, b: &u8| match b.to_ascii_uppercase() {
        digit @ b'0'..=b'9' => (sum * 10 + u32::from(digit - b'0')) % 97,
        letter => (sum * 100 + u32::from(letter - b'A') + 10) % 97,
    };
    text[4..].iter().chain(&text[..4]).fold(0, value) == 1
}

/// Lengths by country, from the IBAN registry.
pub(crate) fn iban_length(country: &[u8]) -> Option<usize> {
    const LENGTHS: &str = "AD24AE23AL28AT20AZ28BA20BE16BG22BH22BI27BR29BY28CH21CR22CY28CZ24DE22DJ27DK18DO28EE20EG29\
        ES24FI18FK18FO18FR27GB22GE22GI23GL18GR27GT28HR21HU28IE22IL23IQ23IS26IT27JO30KW30KZ20LB28LC32LI21LT20LU20LV21\
        LY25MC27MD24ME22MK19MN20MR27MT31MU30NI28NL18NO15OM23PK24PL28PS29PT25QA29RO24RS22RU33SA24SC31SD18SE24SI19SK24\
        SM27SO23ST25SV28TL23TN24TR26UA29VA22VG24XK20YE30";
    let row = LENGTHS.as_bytes().chunks(4).find(|row| row[..2].eq_ignore_ascii_case(country))?;
    Some(number(&row[2..]) as usize)
}

/// Chinese resident identity number (GB 11643): province, date, check character; or the form of 15
/// digits, which has none. `year_max` is not asked: a date of birth in this century passes.
pub(crate) fn cn_resident(id: &[u8]) -> bool {
    let province = |id: &[u8]| matches!(number(&id[..2]), 11..=15 | 21..=23 | 31..=37 | 41..=46 | 50..=54 | 61..=65 | 71 | 81..=83);
    if id.len() == 15 {
        return are_digits(id, 15)
            && province(id)
            && is_date(1900 + number(&id[6..8]), number(&id[8..10]), number(&id[10..12]));
    }
    if id.len() != 18 || !are_digits(&id[..17], 17) || !province(id) {
        return false;
    }
    let year = number(&id[6..10]);
    const WEIGHTS: [u32; 17] = [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2];
    (1850..2100).contains(&year)
        && is_date(year, number(&id[10..12]), number(&id[12..14]))
        && b"10X98765432"[(weighted(id, &WEIGHTS) % 11) as usize] == id[17].to_ascii_uppercase()
}

/// Unified social credit code (GB 32100): form, and mod 31 of the whole.
pub(crate) fn cn_credit_code(code: &[u8]) -> bool {
    const LETTERS: &[u8] = b"0123456789ABCDEFGHJKLMNPQRTUWXY";
    const WEIGHTS: [u32; 17] = [1, 3, 9, 27, 19, 26, 16, 17, 20, 29, 25, 13, 8, 24, 10, 30, 28];
    if code.len() != 18 || !are_digits(&code[2..8], 6) {
        return false;
    }
    let value = |b: &u8| LETTERS.iter().position(|l| *l == b.to_ascii_uppercase()).map(|at| at as u32);
    let Some(values) = code.iter().map(value).collect::<Option<Vec<u32>>>() else { return false };
    let sum: u32 = values.iter().zip(WEIGHTS).map(|(v, w)| v * w).sum();
    b"159YANG".contains(&code[0].to_ascii_uppercase()) && values[17] == (31 - sum % 31) % 31
}

/// US social security number: nothing to compute, only areas, groups and serials never given out.
/// From 900 on they are taxpayer numbers, which have groups of their own.
pub(crate) fn us_ssn(id: &[u8]) -> bool {
    if !are_digits(id, 9) {
        return false;
    }
    let (area, group, serial) = (number(&id[..3]), number(&id[3..5]), number(&id[5..]));
    let taxpayer = matches!(group, 50..=65 | 70..=88 | 90..=92 | 94..=99);
    area != 0 && area != 666 && group != 0 && serial != 0 && (area < 900 || taxpayer)
}

/// Whether it is one that people write as an example of such a number.
pub(crate) fn is_us_ssn_example(id: &[u8]) -> bool {
    matches!(id, b"123456789" | b"078051120" | b"219099999")
}

#[cfg(test)]
mod tests {
    use super::*;

    type Check = fn(&[u8]) -> bool;

    /// Examples that the standards, the authorities or python-stdnum's documentation publish.
    const RIGHT: &[(&str, Check, &str)] = &[
        ("luhn", luhn, "4111111111111111"),
        ("verhoeff", in_aadhaar, "234123412346"),
        ("iban", iban, "GB82WEST12345698765432"),
        ("iban", iban, "DE89370400440532013000"),
        ("cn_resident", cn_resident, "11010519491231002X"),
        ("cn_credit_code", cn_credit_code, "91110000600037341L"),
        ("es_dni", es_dni, "12345678Z"),
        ("es_nie", es_dni, "X1234567L"),
        ("it", it_codice_fiscale, "RSSMRA85T10A562S"),
        ("fr", fr_nir, "255081416802538"),
        ("de", de_tax, "36574261809"),
        ("nl", nl_bsn, "111222333"),
        ("be", be_register, "85073003328"),
        ("pl", pl_pesel, "44051401359"),
        ("pt", pt_nif, "501964843"),
        ("se", se_person, "8112189876"),
        ("fi", fi_hetu, "131052-308T"),
        ("no", no_birth, "15108695088"),
        ("ca", ca_sin, "193456787"),
        ("nhs", gb_nhs, "9434765919"),
        ("ie", ie_pps, "6433435F"),
        ("ch", ch_ahv, "7569217076985"),
        ("cpf", br_cpf, "39053344705"),
        ("cnpj", br_cnpj, "11222333000181"),
        ("mx", mx_curp, "BOXW310820HNERXN09"),
        ("cl", cl_rut, "125319092"),
        ("ar", ar_cuit, "20055361682"),
        ("kr", kr_rrn, "9710139019902"),
        ("sg", sg_nric, "S1234567D"),
        ("hk", hk_id, "A1234563"),
        ("hk", hk_id, "G123456A"),
        ("tw", tw_id, "A123456789"),
        ("za", za_id, "8001015009087"),
        ("tr", tr_kimlik, "10000000146"),
        ("tfn", au_tfn, "123456782"),
        ("medicare", au_medicare, "2123456701"),
    ];

    #[test]
    fn published_examples_pass_and_fail_with_a_digit_changed() {
        for (name, check, example) in RIGHT {
            assert!(check(example.as_bytes()), "{name} {example}");
            assert!(!check(&example.as_bytes()[1..]), "{name}: shorter");
            let last = example.bytes().rposition(|b| b.is_ascii_digit()).unwrap();
            // Medicare's last digit counts cards and is not checked.
            let at = if *name == "medicare" { last - 1 } else { last };
            let mut changed = example.as_bytes().to_vec();
            changed[at] = b'0' + (changed[at] - b'0' + 1) % 10;
            assert!(!check(&changed), "{name}: a digit changed");
        }
    }

    #[test]
    fn japan_and_forms_without_a_check_digit() {
        let good = (0..10).map(|c| format!("12345678901{c}")).filter(|id| jp_individual(id.as_bytes())).count();
        assert_eq!(good, 1);
        assert!(gb_nino(b"AB123456C") && !gb_nino(b"GB123456C") && !gb_nino(b"AB123456E"));
        assert!(in_pan(b"ABCPE1234F") && !in_pan(b"ABCDE1234F"));
        assert!(us_ssn(b"536904399") && !us_ssn(b"666904399") && !us_ssn(b"000904399") && !us_ssn(b"923414399"));
        assert!(cn_resident(b"130503670401001") && !cn_resident(b"130503671301001"));
    }

    #[test]
    fn dates_are_days_of_the_calendar() {
        assert!(is_date(2000, 2, 29) && !is_date(1900, 2, 29) && !is_date(2023, 4, 31) && !is_date(2023, 13, 1));
    }
}
