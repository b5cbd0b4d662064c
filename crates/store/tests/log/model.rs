//! Random operations, against a model that is a map; the file is closed and opened again at random.

use crate::{Folder, story};
use proptest::prelude::*;
use std::collections::BTreeMap;
use tidegate_store::{
    Address, Durability, Export, NewTurn, Retention, Settings, Store, StoreError, Summary, Turn, TurnContent, Window,
};

const TENANTS: [&str; 2] = ["team-a", "team-b"];
const NAMES: usize = 6;

#[derive(Clone, Debug)]
enum Operation {
    Append { who: usize, ahead: u32, now_ms: u64, with_window: bool },
    Summarise { who: usize, first: u32, last: u32 },
    Fork { who: usize, turn: u32, to: usize, now_ms: u64 },
    Delete { who: usize },
    Erase { tenant: usize, end_user: u32 },
    Retain { tenant: usize, keep: Retention },
    Export { tenant: usize },
    Reopen,
}

fn operation() -> impl Strategy<Value = Operation> {
    let who = 0..TENANTS.len() * NAMES;
    let tenant = 0..TENANTS.len();
    let some = |most: u64| proptest::option::of(0..most);
    prop_oneof![
        12 => (who.clone(), prop_oneof![6 => Just(1u32), 1 => 0u32..4], 0..1000u64, any::<bool>())
            .prop_map(|(who, ahead, now_ms, with_window)| Operation::Append { who, ahead, now_ms, with_window }),
        2 => (who.clone(), 0..4u32, 0..6u32).prop_map(|(who, first, last)| Operation::Summarise { who, first, last }),
        2 => (who.clone(), 0..5u32, 0..NAMES, 0..1000u64)
            .prop_map(|(who, turn, to, now_ms)| Operation::Fork { who, turn, to, now_ms }),
        1 => who.prop_map(|who| Operation::Delete { who }),
        1 => (tenant.clone(), 0..7u32).prop_map(|(tenant, end_user)| Operation::Erase { tenant, end_user }),
        1 => (tenant.clone(), some(1000), some(6), some(30_000)).prop_map(|(tenant, age, count, bytes)| {
            let keep = Retention { age_ms_max: age, conversations_max: count, bytes_max: bytes };
            Operation::Retain { tenant, keep }
        }),
        1 => tenant.prop_map(|tenant| Operation::Export { tenant }),
        2 => Just(Operation::Reopen),
    ]
}

/// A conversation as the model has it.
#[derive(Clone, Debug, Default)]
struct Told {
    created_ms: u64,
    updated_ms: u64,
    turns: Vec<Turn>,
    summaries: Vec<Summary>,
    window: Option<Window>,
    parent: Option<(String, u32)>,
}

impl Told {
    fn bytes(&self) -> u64 {
        let turns: u64 = self.turns.iter().map(|turn| turn.content.bytes()).sum();
        turns + self.summaries.iter().map(|summary| summary.body.len() as u64).sum::<u64>()
    }
}

type Model = BTreeMap<(String, String), Told>;

fn address(who: usize) -> Address {
    Address::new(TENANTS[who / NAMES], &format!("name {}", who % NAMES)).unwrap()
}

fn key(address: &Address) -> (String, String) {
    (address.tenant().to_owned(), address.name().to_owned())
}

fn open(folder: &Folder) -> Store {
    Store::open(&folder.log(), Settings { durability: Durability::None, ..Settings::default() }).unwrap()
}

fn append(store: &Store, model: &mut Model, who: usize, ahead: u32, now_ms: u64, with_window: bool) {
    let address = address(who);
    let told = model.get(&key(&address)).cloned().unwrap_or_default();
    let (count, next) = (told.turns.len() as u32, told.turns.len() as u32 + 1);
    let content = match now_ms % 5 {
        0 => TurnContent::appended(format!("[{{\"n\" : {now_ms}}}]").into_bytes()),
        _ => story::content(who as u32 + (now_ms % 3) as u32, next),
    };
    let window = with_window.then(|| now_ms.to_string().into_bytes());
    let turn = NewTurn {
        address: address.clone(),
        expected: Some(count + ahead),
        now_ms,
        content: content.clone(),
        window,
        vault: None,
    };
    let window = turn.window.clone().map(|state| Window { turns: next, state });
    let answer = store.append(turn).wait();
    if ahead != 1 {
        assert_eq!(answer, Err(StoreError::Conflict { expected: count + ahead, next }));
        return;
    }
    let told = model.entry(key(&address)).or_insert_with(|| Told { created_ms: now_ms, ..Told::default() });
    told.updated_ms = told.updated_ms.max(now_ms);
    told.turns.push(Turn { number: next, created_ms: now_ms, content });
    told.window = window.or(told.window.take());
    assert_eq!(answer.map(|appended| (appended.number, appended.conversation_bytes)), Ok((next, told.bytes())));
}

fn summarise(store: &Store, model: &mut Model, who: usize, first: u32, last: u32) {
    let body = format!("{{\"of\":[{first},{last}]}}").into_bytes();
    let summary = Summary { first_turn: first, last_turn: last, created_ms: 3, model: "m".to_owned(), body };
    let answer = store.add_summary(address(who), summary.clone()).wait();
    if first == 0 || first > last {
        assert!(matches!(answer, Err(StoreError::Invalid(_))));
        return;
    }
    match model.get_mut(&key(&address(who))).filter(|told| told.turns.len() as u32 >= last) {
        Some(told) => {
            assert_eq!(answer, Ok(()));
            told.summaries.push(summary);
            // A stable order: those of one range as they came.
            told.summaries.sort_by_key(|summary| (summary.first_turn, summary.last_turn));
        }
        None => assert_eq!(answer, Err(StoreError::NotFound)),
    }
}

fn fork(store: &Store, model: &mut Model, who: usize, turn: u32, to: usize, now_ms: u64) {
    let (from, to) = (address(who), address(who / NAMES * NAMES + to));
    let answer = store.fork(from.clone(), turn, to.name(), now_ms).wait();
    let source = model.get(&key(&from)).filter(|told| (1..=told.turns.len() as u32).contains(&turn));
    let Some(mut told) = source.cloned() else { return assert_eq!(answer, Err(StoreError::NotFound)) };
    if model.contains_key(&key(&to)) {
        return assert_eq!(answer, Err(StoreError::Exists));
    }
    assert_eq!(answer, Ok(()));
    told.turns.truncate(turn as usize);
    told.summaries.retain(|summary| summary.last_turn <= turn);
    told.window = told.window.filter(|window| window.turns <= turn);
    (told.created_ms, told.updated_ms) = (now_ms, now_ms);
    told.parent = Some((from.name().to_owned(), turn));
    model.insert(key(&to), told);
}

fn retain(store: &Store, model: &mut Model, tenant: &str, keep: Retention) {
    let now_ms = 1000;
    let deleted = store.retain(tenant, keep, now_ms).wait().unwrap();
    let mut last = 0;
    for gone in &deleted.conversations {
        let told = model.remove(&(gone.tenant.clone(), gone.name.clone())).unwrap();
        assert_eq!((gone.tenant.as_str(), gone.turns, gone.bytes), (tenant, told.turns.len() as u32, told.bytes()));
        assert!(told.updated_ms >= last, "what changed longest ago goes first");
        last = told.updated_ms;
    }
    let left: Vec<&Told> = model.iter().filter(|(key, _)| key.0 == tenant).map(|(_, told)| told).collect();
    assert!(left.iter().all(|told| told.updated_ms >= last), "and nothing older stays");
    assert!(keep.conversations_max.is_none_or(|max| left.len() as u64 <= max));
    assert!(keep.bytes_max.is_none_or(|max| left.iter().map(|told| told.bytes()).sum::<u64>() <= max));
    let oldest = now_ms - keep.age_ms_max.unwrap_or(now_ms);
    assert!(keep.age_ms_max.is_none() || left.iter().all(|told| told.updated_ms >= oldest));
}

fn erase(store: &Store, model: &mut Model, tenant: &str, end_user: u32) {
    let end_user = format!("user-{end_user}");
    let deleted = store.erase_end_user(tenant, &end_user).wait().unwrap();
    let mut gone: Vec<_> = deleted.conversations.into_iter().map(|gone| (gone.tenant, gone.name)).collect();
    gone.sort();
    let took_part = |told: &Told| told.turns.iter().any(|turn| turn.content.end_user.as_ref() == Some(&end_user));
    let want: Vec<_> =
        model.iter().filter(|(key, told)| key.0 == tenant && took_part(told)).map(|(key, _)| key.clone()).collect();
    assert_eq!(gone, want);
    want.iter().for_each(|key| drop(model.remove(key)));
}

/// An export of `tenant`, imported into an empty log, is the same export.
fn export(store: &Store, tenant: &str) {
    let lines = store.export(Export::Tenant(tenant.to_owned()), None).wait().unwrap().lines;
    let folder = Folder::new();
    let other = open(&folder);
    other.import(tenant, lines.clone()).wait().unwrap();
    assert!(other.export(Export::Tenant(tenant.to_owned()), None).wait().unwrap().lines == lines);
}

/// The log is what the model is.
fn compare(store: &Store, model: &Model) {
    for tenant in TENANTS {
        let page = store.list(tenant, None, 1000).wait().unwrap();
        assert!(page.conversations.is_sorted_by_key(|one| std::cmp::Reverse(one.updated_ms)));
        assert_eq!(page.conversations.len(), model.keys().filter(|key| key.0 == tenant).count());
    }
    for ((tenant, name), told) in model {
        let history = store.read(Address::new(tenant, name).unwrap(), 1).wait().unwrap();
        assert!(history.turns == told.turns, "{tenant} {name}");
        assert_eq!((&history.summaries, &history.window), (&told.summaries, &told.window));
        let found = &history.conversation;
        assert_eq!(
            (found.created_ms, found.updated_ms, found.turns, found.bytes, &found.parent),
            (told.created_ms, told.updated_ms, told.turns.len() as u32, told.bytes(), &told.parent)
        );
    }
    assert_eq!(store.check().wait(), Ok(Vec::new()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn whatever_is_done_the_log_is_what_the_model_is(operations in proptest::collection::vec(operation(), 1..60)) {
        let folder = Folder::new();
        let mut store = open(&folder);
        let mut model = Model::new();
        for operation in operations {
            match operation {
                Operation::Append { who, ahead, now_ms, with_window } => {
                    append(&store, &mut model, who, ahead, now_ms, with_window);
                }
                Operation::Summarise { who, first, last } => summarise(&store, &mut model, who, first, last),
                Operation::Fork { who, turn, to, now_ms } => fork(&store, &mut model, who, turn, to, now_ms),
                Operation::Delete { who } => {
                    let answer = store.delete(address(who)).wait();
                    match model.remove(&key(&address(who))) {
                        Some(told) => assert_eq!(answer.unwrap().conversations[0].turns, told.turns.len() as u32),
                        None => assert_eq!(answer, Err(StoreError::NotFound)),
                    }
                }
                Operation::Erase { tenant, end_user } => erase(&store, &mut model, TENANTS[tenant], end_user),
                Operation::Retain { tenant, keep } => retain(&store, &mut model, TENANTS[tenant], keep),
                Operation::Export { tenant } => export(&store, TENANTS[tenant]),
                Operation::Reopen => {
                    drop(store);
                    store = open(&folder);
                    compare(&store, &model);
                }
            }
        }
        compare(&store, &model);
    }
}
