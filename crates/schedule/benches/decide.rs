//! What a decision costs with 10,000 requests queued for 1,000 tenants: one `ask` and one `settle`,
//! each with the `advance` that follows it, as a gateway calls them for each request.
//!
//! `cargo bench -p tidegate-schedule --bench decide` (add `-- --quick` for a first look). criterion
//! tells the mean; before it, the cycle is timed one by one, since what is promised is the 99th of
//! a hundred (20 us). The output limit binds: a lease is given out whenever one comes back.

#![allow(clippy::print_stdout, reason = "a bench speaks on its standard output")]
#![allow(clippy::disallowed_methods, reason = "real time is what is measured")]

use criterion::{Criterion, criterion_group, criterion_main};
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use tidegate_base::{Moment, Prng};
use tidegate_schedule::{
    Ask, Band, ClassId, Lease, Limits, Mix, OrgId, OrgSpec, Outcome, Rules, Scheduler, Spent, TenantId, Verdict,
};

const QUEUED: usize = 10_000;
const TENANTS: u64 = 1_000;
const CYCLES: usize = 100_000;
/// Answers under way, at least, while the regular look is timed, and how often it is.
const RUNNING: usize = 5_000;
const LOOKS: usize = 100;

struct Scene {
    scheduler: Scheduler,
    now: Moment,
    prng: Prng,
    out: VecDeque<Lease>,
    went: u64,
}

impl Scene {
    /// A saturated organisation with a full queue, some minutes into its day.
    fn new() -> Self {
        let rules = Rules::default();
        let orgs = [OrgSpec { keys: vec![None], ..OrgSpec::default() }];
        let mut scheduler = Scheduler::new(&orgs, rules);
        let limits =
            Limits { requests: Some(600_000), input_tokens: Some(900_000_000), output_tokens: Some(300_000_000) };
        scheduler.know(Moment::ZERO, OrgId(0), None, ClassId(0), limits);
        let mut scene = Scene { scheduler, now: Moment::ZERO, prng: Prng::new(11), out: VecDeque::new(), went: 0 };
        // A hundred each tick until as many wait as may, less one.
        for _ in 0..20 * QUEUED {
            if scene.waiting() + 1 >= QUEUED {
                break;
            }
            scene.ask();
            scene.cycle_of_others();
        }
        assert!(scene.waiting() + 2 >= QUEUED, "only {} wait", scene.waiting());
        scene
    }

    fn waiting(&self) -> usize {
        self.scheduler.waiting().iter().sum()
    }

    fn ask(&mut self) {
        let p = &mut self.prng;
        let ask = Ask {
            class: ClassId(0),
            tenant: TenantId(p.below(TENANTS) as u32),
            band: *p.pick(&Band::ALL).unwrap_or(&Band::Normal),
            latest: self.now + Duration::from_secs(3_600),
            waited: Duration::ZERO,
            input: Mix { words: p.between(500, 20_000) as u32, ..Mix::default() },
            output_max: Some(4_096),
            seen: true,
            prefix: None,
            conversation: None,
            pin: None,
            avoid: None,
        };
        if let Verdict::Go(lease) = self.scheduler.ask(self.now, ask) {
            self.out.push_back(lease);
        }
    }

    fn advance(&mut self) {
        for (_, verdict) in self.scheduler.advance(self.now) {
            if let Verdict::Go(lease) = verdict {
                self.out.push_back(lease);
                self.went += 1;
            }
        }
    }

    fn settle(&mut self) {
        if let Some(lease) = self.out.pop_front() {
            let spent = Spent { input: 1_500, output: self.prng.between(50, 1_000), ..Spent::default() };
            self.scheduler.settle(self.now, lease, Outcome::Answered(Some(spent)));
        }
    }

    /// Time goes on, with one request coming and fewer leases ending than were asked for.
    fn cycle_of_others(&mut self) {
        self.now = self.now + Duration::from_micros(1);
        self.advance();
    }

    /// What is measured: whatever changed something is followed by an `advance`, as in the gateway,
    /// and the second one is where somebody goes.
    fn cycle(&mut self) {
        self.ask();
        self.advance();
        self.settle();
        self.advance();
    }

    /// Between two measured cycles: time goes on, and the queue stays as long as it was.
    fn goes_on(&mut self) {
        self.now = self.now + Duration::from_micros(100);
        while self.waiting() + 1 < QUEUED && self.out.len() < 100_000 {
            self.ask();
        }
    }
}

fn quantiles(scene: &mut Scene) {
    let mut taken: Vec<Duration> = Vec::with_capacity(CYCLES);
    let before = scene.went;
    for _ in 0..CYCLES {
        scene.goes_on();
        let start = Instant::now();
        scene.cycle();
        taken.push(start.elapsed());
    }
    taken.sort_unstable();
    let at = |q: f64| taken[((taken.len() - 1) as f64 * q) as usize];
    let (waiting, went) = (scene.waiting(), scene.went - before);
    assert!(went as usize > CYCLES / 4, "only {went} of {CYCLES} went: nothing is decided");
    println!("{waiting} queued, {TENANTS} tenants, {} leases out: one cycle of ask and settle", scene.out.len());
    println!("p50 {:?}, p99 {:?}, p99.9 {:?}, most {:?}", at(0.5), at(0.99), at(0.999), at(1.0));
}

/// What is reckoned anew every 50 ms: the answers under way, and how much is still to come of each.
fn regular_look(scene: &mut Scene) {
    let mut taken: Vec<Duration> = Vec::with_capacity(LOOKS);
    while scene.out.len() < RUNNING {
        scene.now = scene.now + Duration::from_millis(1);
        scene.goes_on();
        scene.advance();
    }
    for _ in 0..LOOKS {
        scene.now = scene.now + Duration::from_millis(50);
        let start = Instant::now();
        scene.advance();
        taken.push(start.elapsed());
        scene.goes_on();
    }
    taken.sort_unstable();
    println!(
        "{} leases out: the look of every 50 ms: p50 {:?}, most {:?}",
        scene.out.len(),
        taken[LOOKS / 2],
        taken[LOOKS - 1]
    );
}

fn decide(criterion: &mut Criterion) {
    let mut scene = Scene::new();
    quantiles(&mut scene);
    regular_look(&mut Scene::new());
    criterion.bench_function("ask and settle with 10,000 queued", |bencher| {
        bencher.iter_custom(|times| {
            let mut total = Duration::ZERO;
            for _ in 0..times {
                scene.goes_on();
                let start = Instant::now();
                scene.cycle();
                total += start.elapsed();
            }
            total
        });
    });
}

criterion_group!(benches, decide);
criterion_main!(benches);
