//! Metrics of redaction: how much of which kind, whose, and what was done with it. No value, and no
//! place in a text.

use crate::metrics::{Metrics, Text};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Finding {
    tenant: Text,
    kind: &'static str,
    action: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Closed {
    tenant: Text,
    action: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TenantOf {
    tenant: Text,
}

/// The numbers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Redaction {
    findings: Family<Finding, Counter>,
    unscannable: Family<Closed, Counter>,
    failed: Family<TenantOf, Counter>,
}

impl Redaction {
    pub(crate) fn register(&self, r: &mut Registry) {
        r.register(
            "redact_findings",
            "Personal data and secrets found in requests, by tenant, kind and what was done with it",
            self.findings.clone(),
        );
        r.register(
            "redact_unscannable",
            "Parts of requests that could not be looked into, by tenant and what was done with them",
            self.unscannable.clone(),
        );
        r.register("redact_failed", "Requests refused because the filter failed, by tenant", self.failed.clone());
    }
}

impl Metrics {
    /// So many findings of a kind met one fate.
    pub fn redacted(&self, tenant: &str, kind: &'static str, action: &'static str, count: u32) {
        if count > 0 {
            let labels = Finding { tenant: Text(tenant.into()), kind, action };
            self.redaction.findings.get_or_create_owned(&labels).inc_by(count.into());
        }
    }

    /// So many parts could not be looked into.
    pub fn unscannable(&self, tenant: &str, action: &'static str, count: u32) {
        if count > 0 {
            let labels = Closed { tenant: Text(tenant.into()), action };
            self.redaction.unscannable.get_or_create_owned(&labels).inc_by(count.into());
        }
    }

    /// The filter failed, and a request with it.
    pub fn redaction_failed(&self, tenant: &str) {
        self.redaction.failed.get_or_create_owned(&TenantOf { tenant: Text(tenant.into()) }).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_is_counted_by_tenant_and_kind() {
        let metrics = Metrics::new();
        metrics.redacted("a", "phone", "mask", 2);
        metrics.redacted("a", "phone", "mask", 1);
        metrics.redacted("a", "email", "mask", 0);
        metrics.unscannable("b", "block", 1);
        metrics.redaction_failed("b");
        let text = metrics.text();
        let has = |line: &str| text.lines().any(|l| l == line);
        assert!(has(r#"tidegate_redact_findings_total{tenant="a",kind="phone",action="mask"} 3"#), "{text}");
        assert!(has(r#"tidegate_redact_unscannable_total{tenant="b",action="block"} 1"#));
        assert!(has(r#"tidegate_redact_failed_total{tenant="b"} 1"#));
        assert!(!text.contains("email"));
    }
}
