//! What is looked for: the kinds of personal data and secrets, with the words people see for them.
//!
//! A kind has a name (settings, reports, error messages), a tag (what irreversible masking writes)
//! and a letter (which token it makes, so that a model can tell a phone from a card). The letters
//! belong to tokens in stored conversations and are never given to another kind.

use std::fmt;

/// A kind of personal data or secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Telephone numbers: Chinese mobile and landline, North American, E.164.
    Phone,
    /// E-mail addresses.
    Email,
    /// Payment cards: IIN and Luhn.
    Card,
    /// Chinese bank cards (UnionPay), and account numbers of that form.
    BankCard,
    /// International bank account numbers.
    Iban,
    /// IPv4 and IPv6 addresses, public ones unless asked otherwise.
    Ip,
    /// Chinese resident identity numbers.
    ResidentId,
    /// Chinese unified social credit codes.
    CreditCode,
    /// Social security and taxpayer numbers of the United States.
    Ssn,
    /// National numbers of other countries; the finding's rule says which.
    NationalId,
    /// API keys and other secrets.
    Secret,
    /// Private keys in PEM or OpenPGP armour.
    PrivateKey,
    /// JSON web tokens.
    Jwt,
    /// Passwords inside URLs.
    Password,
    /// Passports and travel permits, where a word nearby says so.
    Passport,
    /// Vehicle plates.
    Plate,
    /// Names of people, by cues. Off unless asked for.
    Name,
    /// Street addresses, by cues. Off unless asked for.
    Address,
    /// The operator's own patterns.
    Custom,
}

/// How many kinds there are.
pub const KINDS: usize = 19;

impl Kind {
    /// Every kind, in order.
    pub const ALL: [Kind; KINDS] = [
        Kind::Phone,
        Kind::Email,
        Kind::Card,
        Kind::BankCard,
        Kind::Iban,
        Kind::Ip,
        Kind::ResidentId,
        Kind::CreditCode,
        Kind::Ssn,
        Kind::NationalId,
        Kind::Secret,
        Kind::PrivateKey,
        Kind::Jwt,
        Kind::Password,
        Kind::Passport,
        Kind::Plate,
        Kind::Name,
        Kind::Address,
        Kind::Custom,
    ];

    /// Name, tag and letter.
    const fn row(self) -> (&'static str, &'static str, u8) {
        match self {
            Kind::Phone => ("phone", "[PHONE]", b'P'),
            Kind::Email => ("email", "[EMAIL]", b'M'),
            Kind::Card => ("card", "[CARD]", b'C'),
            Kind::BankCard => ("bank_card", "[BANK_CARD]", b'D'),
            Kind::Iban => ("iban", "[IBAN]", b'B'),
            Kind::Ip => ("ip", "[IP]", b'N'),
            Kind::ResidentId => ("resident_id", "[RESIDENT_ID]", b'R'),
            Kind::CreditCode => ("credit_code", "[CREDIT_CODE]", b'G'),
            Kind::Ssn => ("ssn", "[SSN]", b'S'),
            Kind::NationalId => ("national_id", "[NATIONAL_ID]", b'J'),
            Kind::Secret => ("secret", "[SECRET]", b'K'),
            Kind::PrivateKey => ("private_key", "[PRIVATE_KEY]", b'X'),
            Kind::Jwt => ("jwt", "[JWT]", b'W'),
            Kind::Password => ("password", "[PASSWORD]", b'Q'),
            Kind::Passport => ("passport", "[PASSPORT]", b'T'),
            Kind::Plate => ("plate", "[PLATE]", b'L'),
            Kind::Name => ("name", "[NAME]", b'H'),
            Kind::Address => ("address", "[ADDRESS]", b'F'),
            Kind::Custom => ("custom", "[CUSTOM]", b'V'),
        }
    }

    /// The word for it in settings and reports.
    pub const fn name(self) -> &'static str {
        self.row().0
    }

    /// What irreversible masking writes in its place.
    pub const fn tag(self) -> &'static str {
        self.row().1
    }

    /// The letter of its tokens.
    pub const fn letter(self) -> u8 {
        self.row().2
    }

    /// The kind with this name.
    pub fn of_name(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The kind whose tokens have this letter.
    pub fn of_letter(letter: u8) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.letter() == letter)
    }

    /// Its place in [`Kind::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_and_letters_are_nobody_elses() {
        for (at, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind.index(), at);
            assert_eq!(Kind::of_name(kind.name()), Some(kind));
            assert_eq!(Kind::of_letter(kind.letter()), Some(kind));
        }
        let tags: BTreeSet<&str> = Kind::ALL.into_iter().map(Kind::tag).collect();
        assert_eq!(tags.len(), KINDS);
    }
}
