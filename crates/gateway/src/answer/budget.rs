//! The rows for tenants' budgets. A client is told its own tenant's money, and nobody else's.

use super::{Answer, row};
use tidegate_base::rfc3339;
use tidegate_observe::Refused;
use tidegate_wire::error::ErrorType::{Billing, Permission};

/// What its client sees.
pub(super) fn answer(refused: &Refused) -> Answer {
    match refused {
        Refused::Reached { monthly, spent, reserved, anew } => {
            let anew = rfc3339(*anew);
            let said = format!(
                "your budget of {monthly} for this month at this Tidegate is used up: {spent} are spent, {reserved} held for requests under way; it begins anew at {anew}"
            );
            let row = row(Billing, "budget_reached", said);
            // What is only held may come back with the next answer.
            if spent >= monthly { row.never_retry() } else { row }
        }
        Refused::NoPrice => row(
            // Of the model, and not of the money: whoever stands in front puts no key aside for it.
            Permission,
            "price_unknown",
            "this Tidegate has no price for this model, and your budget takes only what has one; ask for another model, or ask its operator for a price",
        )
        .never_retry(),
    }
}

/// What one whose budget takes only what has a price is told of a path whose use nobody counts here.
pub(super) fn uncounted() -> Answer {
    row(
        Permission,
        "price_unknown",
        "what this asks for is not counted in money by this Tidegate (a batch, or a path that it passes on), and your budget takes only what has a price; ask with POST /v1/messages",
    )
    .never_retry()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_base::Usd;

    #[test]
    fn a_budget_that_is_reached_is_a_402_that_says_until_when() {
        let usd = |cents: u64| Usd::from_nanos(cents * 10_000_000);
        let refused =
            |spent| Refused::Reached { monthly: usd(500), spent: usd(spent), reserved: usd(7), anew: 1_796_083_200 };
        let spent = answer(&refused(501));
        assert_eq!((spent.status, spent.code, spent.should_retry), (402, "budget_reached", Some(false)));
        assert_eq!(&*spent.body.kind, "billing_error");
        for want in ["5.00 USD for", "5.01 USD are spent", "0.07 USD held", "2026-12-01T00:00:00Z"] {
            assert!(spent.body.message.contains(want), "{want}: {}", spent.body.message);
        }
        assert_eq!(answer(&refused(499)).should_retry, None, "a part of it is only held");
        let unknown = answer(&Refused::NoPrice);
        assert_eq!((unknown.status, unknown.code, unknown.should_retry), (403, "price_unknown", Some(false)));
    }
}
