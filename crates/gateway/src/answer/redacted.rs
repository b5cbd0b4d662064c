//! The rows of the table for the filter for personal data: kinds and places, and never a value.

use super::{Answer, row};
use tidegate_redact::mask::Refusal;
use tidegate_wire::error::ErrorType::*;

pub(super) fn answer(refusal: &Refusal) -> Answer {
    match refusal {
        Refusal::Blocked(_) => row(InvalidRequest, "personal_data", refusal.to_string()).never_retry(),
        Refusal::Unscannable(_) => row(InvalidRequest, "unscannable", refusal.to_string()).never_retry(),
        Refusal::NotJson => row(InvalidRequest, "invalid_body", refusal.to_string()),
        Refusal::NoVault | Refusal::Vault(_) | Refusal::Failed => {
            row(Api, "redaction_failed", format!("{refusal}; the request was not sent")).never_retry()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_redact::kind::Kind;
    use tidegate_redact::vault::VaultError;

    #[test]
    fn a_refusal_names_kinds_and_places() {
        let blocked = answer(&Refusal::Blocked(vec![(Kind::Phone, "messages.0.content".to_owned())]));
        assert_eq!((blocked.status, blocked.code, blocked.should_retry), (400, "personal_data", Some(false)));
        assert!(blocked.body.message.ends_with(": phone at messages.0.content"), "{}", blocked.body.message);
        let closed = answer(&Refusal::Unscannable(vec!["messages.1.content.0.source.data".to_owned()]));
        assert_eq!((closed.status, closed.code), (400, "unscannable"));
        assert!(closed.body.message.contains("messages.1.content.0.source.data"), "{}", closed.body.message);
    }

    #[test]
    fn what_fails_is_no_fault_of_the_request() {
        for refusal in [Refusal::NoVault, Refusal::Failed, Refusal::Vault(VaultError::Full)] {
            let row = answer(&refusal);
            assert_eq!((row.status, row.code, row.should_retry), (500, "redaction_failed", Some(false)));
        }
    }
}
