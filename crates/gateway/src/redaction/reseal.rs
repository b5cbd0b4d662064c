//! Records under an older key, sealed anew under the newest: how the keys of vaults are changed.

use super::VaultKeys;
use tidegate_redact::vault::{Vault, VaultError};
use tidegate_store::{VaultRecord, VaultRecords};

impl VaultKeys {
    /// The number of the key that seals.
    pub fn newest(&self) -> u32 {
        self.ring.newest()
    }

    /// A conversation's records, each under the newest key, in the order in which they came; `None` if
    /// all of them are already.
    pub fn reseal(&self, tenant: &str, kept: &VaultRecords) -> Result<Option<VaultRecords>, VaultError> {
        let anew = |record: &VaultRecord| {
            let key = if record.shared { self.shared(tenant) } else { self.scope(tenant, &kept.scope) };
            let content = Vault::reseal(key, &self.ring, &record.content)?;
            Ok(VaultRecord { shared: record.shared, content })
        };
        let records = kept.records.iter().map(anew).collect::<Result<Vec<_>, VaultError>>()?;
        // Sealed under the same key, a record is the same bytes.
        let is_same = records.iter().zip(&kept.records).all(|(new, old)| new.content == old.content);
        Ok((!is_same).then(|| VaultRecords { scope: kept.scope.clone(), records }))
    }
}
