//! Metrics of costs: what was spent, what of it has no price, and how far budgets are used up.

use crate::metrics::{Metrics, Text};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::sync::Arc;
use tidegate_base::Usd;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CostOf {
    tenant: Text,
    model: Text,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BudgetOf {
    tenant: Text,
    part: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ActionOf {
    tenant: Text,
    action: &'static str,
}

/// The numbers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spending {
    cost: Family<CostOf, Counter>,
    unpriced: Family<CostOf, Counter>,
    budgets: Family<BudgetOf, Gauge>,
    actions: Family<ActionOf, Counter>,
    not_written: Counter,
}

impl Spending {
    pub(crate) fn register(&self, r: &mut Registry) {
        r.register(
            "cost_nano_usd",
            "Cost of what was used, billionths of a US dollar, by tenant and model",
            self.cost.clone(),
        );
        r.register(
            "unpriced_attempts",
            "Attempts without a known cost, by tenant and model: no price, or no word of what was used",
            self.unpriced.clone(),
        );
        r.register(
            "tenant_budget_nano_usd",
            "Budgets of this month by tenant, billionths of a US dollar: monthly, spent, reserved",
            self.budgets.clone(),
        );
        r.register(
            "tenant_budget_actions",
            "What budgets led to, by tenant: warned and reached once a month, refused, refused_unpriced, queued",
            self.actions.clone(),
        );
        r.register("usage_writes_failed", "Writes of what was used that failed", self.not_written.clone());
    }
}

impl Metrics {
    /// The counters of what a tenant's model cost, and of its attempts of unknown cost. Keep them.
    pub(crate) fn cost_counters(&self, tenant: &Arc<str>, model: &str) -> (Counter, Counter) {
        let labels = CostOf { tenant: Text(Arc::clone(tenant)), model: self.model_label(model) };
        (self.spending.cost.get_or_create_owned(&labels), self.spending.unpriced.get_or_create_owned(&labels))
    }

    /// How a tenant's budget stands.
    pub fn tenant_budget(&self, tenant: &Arc<str>, monthly: Usd, spent: Usd, reserved: Usd) {
        for (part, amount) in [("monthly", monthly), ("spent", spent), ("reserved", reserved)] {
            let labels = BudgetOf { tenant: Text(Arc::clone(tenant)), part };
            let nanos = i64::try_from(amount.nanos()).unwrap_or(i64::MAX);
            self.spending.budgets.get_or_create_owned(&labels).set(nanos);
        }
    }

    /// A tenant has no budget any more.
    pub fn no_tenant_budget(&self, tenant: &Arc<str>) {
        for part in ["monthly", "spent", "reserved"] {
            self.spending.budgets.remove(&BudgetOf { tenant: Text(Arc::clone(tenant)), part });
        }
    }

    /// A budget led to something, of a closed list.
    pub fn budget_action(&self, tenant: &Arc<str>, action: &'static str) {
        let labels = ActionOf { tenant: Text(Arc::clone(tenant)), action };
        self.spending.actions.get_or_create_owned(&labels).inc();
    }

    /// What was used could not be written.
    pub fn usage_not_written(&self) {
        self.spending.not_written.inc();
    }
}
