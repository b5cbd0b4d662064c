//! The admin door's `/streams`: every live request, and the last hundred that are over.
//!
//! A query filters by conversation, tenant, phase and upstream key; one that is misspelt is refused,
//! so that it does not mean "none". Whoever is asked about one conversation finds here where it
//! stands, or how it ended. After an upgrade the requests that the process before still serves are there
//! too, each row with that `process`.

use crate::answer::Trouble;
use crate::house::House;
use crate::memory::TurnTrouble;
use crate::query::Query;
use crate::succession::ElderSilent;
use serde_json::{Value, json};
use tidegate_base::StreamId;
use tidegate_observe::{FINISHED_MAX, Filter, Phase};

/// Live rows that are shown at most; the count beside them is of all.
pub(crate) const ROWS_MAX: usize = 10_000;

/// The page for a query, with at most `rows_max` live rows of this process.
pub(crate) async fn page(house: &House, query: &str, rows_max: usize) -> Result<Value, Trouble> {
    let filter = filter(query)?;
    let mut page = own(house, &filter, rows_max);
    match house.memory.succession.listing(house.clock, query).await {
        Ok(None) => {}
        Ok(Some(theirs)) => add(&mut page, theirs),
        Err(ElderSilent) => page["incomplete"] = json!("the process before this one does not say what it still serves"),
    }
    Ok(page)
}

/// This process' part.
fn own(house: &House, filter: &Filter, rows_max: usize) -> Value {
    let now = house.clock.now();
    let waits = house.admission.waits();
    let waits_for = |stream| {
        let wait: &tidegate_schedule::WaitView = waits.get(&stream)?;
        Some((wait.reason.name(), wait.expected))
    };
    let mut rows = house.live.view(now, rows_max, filter, waits_for);
    for row in &mut rows {
        row.readers = StreamId::parse(&row.stream).and_then(|id| house.streams.readers(id));
    }
    let finished = house.finished.view(now, filter);
    json!({"count": house.live.len(), "streams": rows, "finished": finished})
}

/// Says of all rows that say nothing of it which process they are of.
pub(crate) fn mark(page: &mut Value, process: u32) {
    for table in ["streams", "finished"] {
        for row in rows(page, table).into_iter().flatten().filter_map(Value::as_object_mut) {
            row.entry("process").or_insert_with(|| process.into());
        }
    }
}

/// Adds what the process before shows, each table in its order: the oldest first, and the last that is
/// over.
fn add(page: &mut Value, mut theirs: Value) {
    let number = |row: &Value, name: &str| row[name].as_u64().unwrap_or_default();
    page["count"] = json!(number(page, "count") + number(&theirs, "count"));
    for (table, most) in [("streams", ROWS_MAX), ("finished", FINISHED_MAX)] {
        let more = rows(&mut theirs, table).map(std::mem::take).unwrap_or_default();
        let Some(rows) = rows(page, table) else { continue };
        rows.extend(more);
        match table {
            "streams" => rows.sort_by_key(|row| std::cmp::Reverse(number(row, "age_ms"))),
            _ => rows.sort_by_key(|row| number(row, "ended_ms_ago")),
        }
        rows.truncate(most);
    }
}

fn rows<'p>(page: &'p mut Value, table: &str) -> Option<&'p mut Vec<Value>> {
    page.get_mut(table).and_then(Value::as_array_mut)
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
