//! What was used, in a file: over a restart, over a month, and when the disk does not take it.

use crate::scene::{DECEMBER, NOON, OPUS, Scene, cents};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use tidegate_gateway::UsageFile;
use tidegate_store::{Settings, Store, UsageFilter};

/// A folder of a test's own, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("tidegate-costs-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        Folder(folder)
    }

    fn open(&self, settings: Settings) -> Store {
        Store::open(&self.0.join("u.db"), settings).unwrap()
    }

    fn usage(&self) -> UsageFile {
        UsageFile::Own(self.open(Settings::default()))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A process's life: at its end all tasks are gone, and whoever held the file has let go of it.
fn life<T>(of: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(of)
}

#[test]
fn after_a_restart_everything_is_there_and_the_budget_goes_on() {
    let folder = Folder::new();
    life(async {
        let scene = Scene::keeping(NOON, Some(cents(10)), folder.usage()).await;
        scene.ask(OPUS, "in=10 out=4500").await.is_whole();
        scene.ask("house-model", "out=5").await.is_whole();
        scene.rests().await;
        scene.gateway.drain().await;
    });
    life(async {
        let scene = Scene::keeping(NOON + 60, Some(cents(10)), folder.usage()).await;
        assert_eq!(scene.usage("").await["budgets"][0]["spent_usd"], "0.09004");
        let warned = scene.ask(OPUS, "in=10 out=1000").await;
        warned.is_whole();
        assert_eq!(warned.header("tidegate-budget-spent"), Some("90%"));
        scene.rests().await;
        assert_eq!(scene.ask(OPUS, "out=1").await.refusal(), (402, "budget_reached".to_owned()));
        let is = |attempts, output, usd: Option<&str>| {
            ("2026-11-23".to_owned(), "answered".to_owned(), attempts, output, usd.map(str::to_owned))
        };
        assert_eq!(scene.rows("").await, [is(2, 5_500, Some("0.11008")), is(1, 5, None)]);
        assert_eq!(scene.usage("").await["kept"]["in"], "file");
        // Told again, nothing has changed: what was written is not written twice.
        assert_eq!(scene.usage("?model=claude-opus-5-5").await["total"]["attempts"], 2);
        scene.gateway.drain().await;
    });
    life(async {
        let scene = Scene::keeping(DECEMBER, Some(cents(10)), folder.usage()).await;
        assert_eq!(scene.usage("").await["budgets"][0]["spent_usd"], "0.00");
        scene.ask(OPUS, "out=1").await.is_whole();
        assert_eq!(scene.rows("?from=2026-11-01&to=2026-11-30").await.len(), 2);
    });
}

#[test]
fn what_the_disk_does_not_take_is_told_all_the_same_and_tried_again() {
    let folder = Folder::new();
    let size = folder.open(Settings::default()).size().wait().unwrap().file_bytes;
    life(async {
        let small = Settings { file_bytes_max: Some(size + (16 << 10)), ..Settings::default() };
        let scene = Scene::keeping(NOON, None, UsageFile::Own(folder.open(small))).await;
        for n in 0..400 {
            scene.ask(&format!("{}-{n}", "m".repeat(110)), "out=5").await.is_whole();
        }
        scene.rests().await;
        let page = scene.usage("").await;
        assert_eq!((&page["unwritten"], &page["total"]["attempts"]), (&true.into(), &400.into()));
        assert_eq!(scene.usage("").await["total"]["output_tokens"], 2_000, "asked again, the same");
        let failed = || scene.metric("tidegate_usage_writes_failed_total") > 0.0;
        for _ in 0..100 {
            if failed() {
                return;
            }
            scene.clock.sleep_until(scene.clock.now() + std::time::Duration::from_millis(100)).await;
        }
        panic!("no write was said to have failed");
    });
}

#[test]
fn days_that_are_kept_no_longer_go() {
    let folder = Folder::new();
    life(async {
        let scene = Scene::keeping(NOON, None, folder.usage()).await;
        scene.ask(OPUS, "out=1").await.is_whole();
        scene.rests().await;
        scene.gateway.drain().await;
    });
    let kept = UsageFilter { to: u32::MAX, rows: 10, ..UsageFilter::default() };
    assert_eq!(folder.open(Settings::default()).usage(kept).wait().unwrap().len(), 1, "it is there");
    life(async {
        // Four hundred days later; the first look is at start.
        let scene = Scene::keeping(NOON + 401 * 86_400, None, folder.usage()).await;
        for _ in 0..100 {
            if scene.rows("?from=2026-01-01").await.is_empty() {
                return;
            }
            scene.clock.sleep_until(scene.clock.now() + std::time::Duration::from_millis(50)).await;
        }
        panic!("what is too old is still there");
    });
}
