//! The admin door's `/streams`: every live request, and the last hundred that are over.
//!
//! A query filters by conversation, tenant, phase and upstream key; one that is misspelt is refused,
//! so that it does not mean "none". Whoever is asked about one conversation finds here where it
//! stands, or how it ended.

use crate::answer::Trouble;
use crate::house::House;
use crate::memory::TurnTrouble;
use crate::query::Query;
use serde_json::{Value, json};
use tidegate_base::StreamId;
use tidegate_observe::{Filter, Phase};

/// Live rows that are shown at most; the count beside them is of all.
const ROWS_MAX: usize = 10_000;

/// The page for a query.
pub(crate) fn page(house: &House, query: &str) -> Result<Value, Trouble> {
    let filter = filter(query)?;
    let now = house.clock.now();
    let waits = house.admission.waits();
    let waits_for = |stream| {
        let wait: &tidegate_schedule::WaitView = waits.get(&stream)?;
        Some((wait.reason.name(), wait.expected))
    };
    let mut rows = house.live.view(now, ROWS_MAX, &filter, waits_for);
    for row in &mut rows {
        row.readers = StreamId::parse(&row.stream).and_then(|id| house.streams.readers(id));
    }
    let finished = house.finished.view(now, &filter);
    Ok(json!({"count": house.live.len(), "streams": rows, "finished": finished}))
}

fn filter(query: &str) -> Result<Filter, Trouble> {
    let query = Query::read(query, &["conversation", "tenant", "phase", "key"])?;
    let text = |key| query.text(key).map(str::to_owned);
    Ok(Filter {
        conversation: text("conversation"),
        tenant: text("tenant"),
        phase: query.text("phase").map(phase).transpose()?,
        key: text("key"),
    })
}

fn phase(name: &str) -> Result<Phase, Trouble> {
    let found = Phase::ALL.into_iter().find(|phase| phase.name() == name);
    found.ok_or_else(|| {
        let names = Phase::ALL.map(Phase::name).join(", ");
        TurnTrouble::Query(format!("phase: expected one of {names}")).into()
    })
}
