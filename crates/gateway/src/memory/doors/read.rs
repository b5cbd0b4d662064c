//! Reading: a page of conversations, one of them, a page of its turns.

use super::{Asked, ROWS, ROWS_MAX, Told, ask, export, shape};
use crate::answer::Trouble;
use crate::attempt::Stop;
use crate::memory::{TurnTrouble, masking};
use crate::reply::Reply;
use tidegate_store::{Export, PageCursor};

/// Bytes of turns in a page, unless one turn has more: what is copied at once.
const PAGE_BYTES: u64 = 4 << 20;
/// Most turns of a conversation (`docs/formats/conversations.md`).
const TURNS_MAX: u64 = 100_000;

/// `GET /v1/conversations`: a page, or with `format=jsonl` all of them as lines.
pub(super) async fn all(asked: &Asked<'_>, reply: &mut Reply<'_>) -> Result<Told, Stop> {
    let query = asked.query(&["limit", "page", "format", "user_id"])?;
    let owner = &*asked.caller.tenant.name;
    if query.wants_lines()? {
        query.without(&["limit", "page"], "beside format=jsonl")?;
        let tenant = owner.to_string();
        let what = match query.user()? {
            Some(user) => {
                let masked =
                    asked.house.settings.redaction.end_user_sought(&tenant, user).map_err(Trouble::Redacted)?;
                Export::EndUser { tenant, end_user: masked.unwrap_or_else(|| user.to_owned()) }
            }
            None => Export::Tenant(tenant),
        };
        return export::export(asked.house, reply, what).await;
    }
    query.without(&["user_id"], "without format=jsonl")?;
    let rows = query.number("limit", 1..=ROWS_MAX)?.unwrap_or(ROWS);
    let cursor: Option<PageCursor> =
        query.text("page").map(str::parse).transpose().map_err(|_| {
            Trouble::from(TurnTrouble::Query("page: expected next_page of an earlier answer".to_owned()))
        })?;
    let store = asked.house.memory.store().map_err(Trouble::from)?;
    let page = ask(reply, store.list(owner, cursor, rows as u32)).await?;
    let items: Vec<Vec<u8>> = page.conversations.iter().map(shape::conversation).collect();
    Ok(Told::Json(shape::page(&items, "next_page", page.next.map(|next| next.to_string()).as_ref())))
}

/// `GET /v1/conversations/{id}`: it, or with `format=jsonl` its lines.
pub(super) async fn one(asked: &Asked<'_>, reply: &mut Reply<'_>, id: &str) -> Result<Told, Stop> {
    let query = asked.query(&["format"])?;
    let address = asked.address(id)?;
    if query.wants_lines()? {
        return export::export(asked.house, reply, Export::Conversation(address)).await;
    }
    let store = asked.house.memory.store().map_err(Trouble::from)?;
    Ok(Told::Json(shape::conversation(&ask(reply, store.conversation(address)).await?)))
}

/// `GET /v1/conversations/{id}/turns`: a page of turns, ended early where they are large.
pub(super) async fn turns(asked: &Asked<'_>, reply: &mut Reply<'_>, id: &str) -> Result<Told, Stop> {
    let query = asked.query(&["from", "limit"])?;
    let from = query.number("from", 1..=TURNS_MAX)?.unwrap_or(1) as u32;
    let rows = query.number("limit", 1..=ROWS_MAX)?.unwrap_or(ROWS) as u32;
    let address = asked.address(id)?;
    let house = asked.house;
    let store = house.memory.store().map_err(Trouble::from)?;
    let (turns, next) = ask(reply, store.turns(address, from, rows, PAGE_BYTES)).await?;
    let items: Vec<Vec<u8>> = turns.iter().map(shape::turn).collect();
    drop(turns);
    let json = shape::page(&items, "next_from", next.as_ref());
    let live = reply.attend(masking::live_of(house, &asked.address(id)?)).await?.map_err(Trouble::from)?;
    reply.restores(live);
    let lease = house.backlogs.lease(json.len() as u64).ok_or(Trouble::BacklogBudget)?;
    Ok(Told::Leased(json, lease))
}
