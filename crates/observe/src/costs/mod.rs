//! What was used and what it costs: prices, rows by tenant, model and day, budgets by month.
//!
//! ```text
//!   settle ──▶ ledger ──▶ rows of a day: tenant, model, what became of the attempt
//!                │               └─▶ whoever keeps them takes them away, in pieces
//!                └──▶ the tenant's month ◀── reserved by what is under way ◀── admission
//! ```
//! Everything is whole numbers: tokens, attempts, billionths of a dollar. Days and months are UTC's,
//! of the moment a request ended.

mod budget;
mod ledger;
mod prices;
mod today;

pub use budget::{Admitted, Budget, BudgetView, Notice, Reached, Refused, Reservation, Unpriced, Wanted};
pub use ledger::{DAYS_IN_MEMORY, Kind, Ledger, Recorded, Row, RowKey, Spend};
pub use prices::{Price, Prices, TOKENS_MAX, per_million};
pub use today::{NAMES_A_DAY_MAX, OTHER};
