//! How much one stream may still send: a balance in bytes of events.
//!
//! An event goes out whole while the balance is above zero, so the balance may go below by one
//! event; a client that grants small amounts still gets large events. Without an initial grant
//! nothing is counted.

/// The most a balance may be, bytes.
pub const CREDIT_BYTES_MAX: u64 = 1 << 30;

/// Why a grant was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadGrant {
    /// The stream was begun without credit.
    NotCounted,
    /// The balance would be above [`CREDIT_BYTES_MAX`].
    TooMuch,
}

/// One stream's balance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credit(Option<i64>);

impl Credit {
    /// The balance at the beginning; `None` counts nothing. It was read as at most
    /// [`CREDIT_BYTES_MAX`].
    pub fn new(granted: Option<u64>) -> Self {
        Credit(granted.map(|bytes| bytes.min(CREDIT_BYTES_MAX) as i64))
    }

    /// Whether another event may go out.
    pub fn may_send(self) -> bool {
        self.0.is_none_or(|balance| balance > 0)
    }

    /// An event of so many bytes went out.
    pub fn spend(&mut self, bytes: usize) {
        if let Some(balance) = &mut self.0 {
            *balance = balance.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
    }

    /// The client grants more; a grant that is not taken changes nothing.
    pub fn grant(&mut self, bytes: u64) -> Result<(), BadGrant> {
        let Some(balance) = &mut self.0 else { return Err(BadGrant::NotCounted) };
        let sum = i64::try_from(bytes).ok().and_then(|bytes| balance.checked_add(bytes));
        *balance = sum.filter(|sum| *sum <= CREDIT_BYTES_MAX as i64).ok_or(BadGrant::TooMuch)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_goes_below_zero_by_one_event_at_most() {
        let mut credit = Credit::new(Some(10));
        credit.spend(9);
        assert!(credit.may_send());
        credit.spend(5000);
        assert!(!credit.may_send());
        credit.grant(4999).unwrap();
        assert!(!credit.may_send(), "a debt is paid first, to the byte");
        credit.grant(1).unwrap();
        assert!(credit.may_send());
    }

    #[test]
    fn a_grant_that_makes_no_sense_changes_nothing() {
        assert_eq!(Credit::new(None).grant(1), Err(BadGrant::NotCounted));
        assert!(Credit::new(None).may_send() && !Credit::new(Some(0)).may_send());
        let mut credit = Credit::new(Some(CREDIT_BYTES_MAX));
        for bytes in [1, u64::MAX, i64::MAX as u64] {
            assert_eq!(credit.grant(bytes), Err(BadGrant::TooMuch));
        }
        assert_eq!(credit, Credit::new(Some(CREDIT_BYTES_MAX)));
    }
}
