//! Retention and compaction on a log of their own.

use super::*;
use crate::costs::UsageFile;
use crate::settings::{Settings, TenantSettings};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use tidegate_base::{IdSource, Prng};
use tidegate_observe::{LiveRequest, NoRecords};
use tidegate_schedule::TenantRules;
use tidegate_store::{Address, Durability, NewTurn, Store, StreamCheckpoint, StreamHead, TurnContent};
use tidegate_transport::Clock;

const DAY: Duration = Duration::from_secs(86_400);

/// A folder that goes with its test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("tidegate-upkeep-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A house with a log and these rules; one tenant keeps two conversations.
fn house(folder: &Folder, keep: Keep, compact_every: Duration) -> Arc<House> {
    let store = tidegate_store::Settings { durability: Durability::None, ..tidegate_store::Settings::default() };
    let store = Store::open(&folder.0.join("c.db"), store).unwrap();
    let mut settings = Settings::default();
    (settings.conversations.keep, settings.conversations.compact_every) = (keep, compact_every);
    let own = Keep { conversations: Some(2), ..Keep::default() };
    let rules = TenantRules::default();
    settings.tenants =
        vec![TenantSettings { name: "few".into(), rules, band: None, window: None, keep: own, budget: None }];
    Arc::new(House::new(Clock::real(), settings, Arc::new(NoRecords), Some(store), UsageFile::Memory))
}

fn address(tenant: &str, name: &str) -> Address {
    Address::new(tenant, name).unwrap()
}

/// A conversation that changed so long ago.
async fn told(house: &House, tenant: &str, name: &str, ago: Duration, bytes: usize) {
    let now_ms = house.memory.now_ms() - ago.as_millis() as u64;
    let content = TurnContent::appended(
        format!("[{{\"role\":\"user\",\"content\":\"{}\"}}]", "x y ".repeat(bytes / 4)).into_bytes(),
    );
    let turn = NewTurn { address: address(tenant, name), expected: None, now_ms, content, window: None, vault: None };
    house.memory.store().unwrap().append(turn).await.unwrap();
}

async fn left(house: &House, tenant: &str) -> Vec<String> {
    let page = house.memory.store().unwrap().list(tenant, None, 1_000).await.unwrap();
    page.conversations.into_iter().map(|conversation| conversation.name).collect()
}

fn metric(house: &House, name: &str) -> f64 {
    let text = house.metrics.text();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.parse().unwrap())
}

#[test]
fn a_tenants_own_rules_stand_before_those_for_all() {
    let all = Keep { age: Some(7 * DAY), conversations: Some(10), bytes: None };
    let own = Keep { conversations: Some(2), ..Keep::default() };
    let rules = Rules { all, tenants: BTreeMap::from([("acme", own)]) };
    assert!(!rules.keep_all());
    let acme = rules.of_tenant("acme");
    assert_eq!((acme.age_ms_max, acme.conversations_max, acme.bytes_max), (Some(604_800_000), Some(2), None));
    assert_eq!(rules.of_tenant("other").conversations_max, Some(10));
    assert!(Rules { all: Keep::default(), tenants: BTreeMap::new() }.keep_all());
}

#[tokio::test]
async fn what_is_past_its_age_goes_unless_somebody_has_it_and_memory_forgets_it() {
    let folder = Folder::new();
    let house = house(&folder, Keep { age: Some(90 * DAY), ..Keep::default() }, DAY);
    for (name, days) in [("old", 91), ("held", 100), ("new", 89)] {
        told(&house, "a", name, days * DAY, 100).await;
    }
    for (name, days) in [("1", 5), ("2", 3), ("3", 4), ("4", 1)] {
        told(&house, "few", name, days * DAY, 100).await;
    }
    let shelf = &house.memory.shelf;
    let held = shelf.slot(&address("a", "held")).unwrap().try_lock_owned().unwrap();
    retain(&house).await.unwrap();
    assert_eq!(
        (left(&house, "a").await, left(&house, "few").await),
        (vec!["new".into(), "held".into()], vec!["4".into(), "2".into()])
    );
    assert_eq!(metric(&house, "tidegate_conversations_deleted_total{by=\"retention\"}"), 3.0);
    assert_eq!(shelf.held().0, 1, "nothing is left behind of those that went");
    drop(held);
    retain(&house).await.unwrap();
    assert_eq!(left(&house, "a").await, ["new"]);
    assert!(house.memory.deleted.load(Ordering::Relaxed));
}

#[tokio::test]
async fn bytes_are_kept_within_and_steps_follow_each_other() {
    let folder = Folder::new();
    let house = house(&folder, Keep { bytes: Some(20_000), ..Keep::default() }, DAY);
    // More than one step deletes.
    for nth in 0..1_100_u32 {
        told(&house, "a", &format!("c{nth:04}"), DAY - Duration::from_secs(nth.into()), 1_000).await;
    }
    retain(&house).await.unwrap();
    let left = left(&house, "a").await;
    assert_eq!((left.first().unwrap().as_str(), left.len()), ("c1099", 19));
}

#[tokio::test]
async fn durable_streams_go_when_their_time_is_over() {
    let folder = Folder::new();
    let house = house(&folder, Keep::default(), DAY);
    let store = house.memory.store().unwrap();
    let mut ids = IdSource::new(Prng::new(1), 0);
    let (now_ms, kept) = (house.memory.now_ms(), house.settings.clocks.stream_kept);
    // Of more than one step some stay.
    let streams: Vec<_> = (0..700).map(|_| ids.stream()).collect();
    for (n, stream) in streams.iter().enumerate() {
        let head = StreamHead {
            stream: *stream,
            tenant: "a".to_owned(),
            own: None,
            request_id: ids.request().to_string(),
            head: b"HTTP/1.1 200 OK\r\n\r\n".to_vec(),
            end_user: None,
            conversation: None,
            vault: None,
        };
        let ago = if n < 600 { kept * 2 } else { kept / 2 }.as_millis() as u64;
        let (segment, ended) = (vec![1; 10], n % 2 == 0);
        let head = Arc::new(head);
        let (now_ms, bytes_max, all_bytes_max) = (now_ms - ago, 100, 1 << 20);
        let checkpoint = StreamCheckpoint { head, segment, ended, now_ms, bytes_max, all_bytes_max };
        store.checkpoint_stream(checkpoint).await.unwrap();
    }
    streams::forget_old(&house).await.unwrap();
    let there = |n: usize| store.stream("a", None, streams[n]);
    assert_eq!(there(0).await, Err(StoreError::NotFound));
    assert_eq!(there(599).await, Err(StoreError::NotFound));
    assert!(there(600).await.is_ok() && there(699).await.is_ok());
}

#[tokio::test]
async fn a_compaction_waits_for_its_time_and_for_a_quiet_moment() {
    let folder = Folder::new();
    let house = house(&folder, Keep::default(), DAY);
    let now = house.clock.now();
    assert!(!is_time(&house, now, now), "nothing was deleted");
    house.memory.deleted.store(true, Ordering::Relaxed);
    assert!(is_time(&house, now, now) && !is_time(&house, now + DAY, now));
    let mut ids = IdSource::new(Prng::new(1), 0);
    let live = house.live.enter(LiveRequest::new(ids.request(), ids.stream(), "messages", now));
    assert!(!is_time(&house, now, now) && is_time(&house, now, now + PATIENCE));
    house.live.leave(live.stream);
    assert!(is_time(&house, now, now));
    told(&house, "a", "c", DAY, 2 << 20).await;
    let gone = house.memory.store().unwrap().delete(address("a", "c")).await.unwrap();
    assert_eq!(gone.conversations.len(), 1);
    compact(&house).await.unwrap();
    assert!(!house.memory.deleted.load(Ordering::Relaxed));
    assert!(metric(&house, "tidegate_conversation_log_freed_bytes_total") > 1e6);
    assert_eq!(size(&house).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_task_does_both_again_and_again_until_a_drain_begins() {
    let folder = Folder::new();
    {
        let before = house(&folder, Keep::default(), DAY);
        told(&before, "a", "gone", DAY, 2 << 20).await;
        before.memory.store().unwrap().delete(address("a", "gone")).await.unwrap();
    }
    // What the process before it deleted is seen to by this one.
    let house = house(&folder, Keep { age: Some(DAY), ..Keep::default() }, Duration::ZERO);
    let tasks = tidegate_transport::Tasks::new();
    tasks.spawn(&UPKEEP, upkeep(Current::new(Arc::clone(&house))));
    let wait = async |name: &str, at_least: f64| {
        for _ in 0..10_000 {
            if metric(&house, name) >= at_least {
                return;
            }
            house.clock.sleep_until(house.clock.now() + LOOK_EVERY).await;
        }
        panic!("{name} never came to {at_least}");
    };
    wait("tidegate_conversation_log_freed_bytes_total", 2e6).await;
    assert_eq!(metric(&house, "tidegate_conversations_deleted_total{by=\"retention\"}"), 0.0);
    told(&house, "a", "old", 2 * DAY, 2 << 20).await;
    wait("tidegate_conversations_deleted_total{by=\"retention\"}", 1.0).await;
    wait("tidegate_conversation_upkeep_seconds{task=\"retention\"}", 1.0).await;
    wait("tidegate_conversation_upkeep_seconds{task=\"compaction\"}", 1.0).await;
    wait("tidegate_conversation_log_freed_bytes_total", 4e6).await;
    assert!(metric(&house, "tidegate_conversation_log_bytes") > 0.0);
    house.leave(crate::house::Leaving::Draining);
    tasks.all_ended().await;
}
