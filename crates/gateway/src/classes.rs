//! Classes of what is asked for: what the upstream meters together.
//!
//! A class is a pool of models, or one of the doors beside it: fast mode and counting tokens are
//! metered apart. Its name is that of the configuration and of the metrics; its number is the
//! scheduler's.
//!
//! Clients choose the names. One that the configuration knows, or for which an upstream has answered,
//! keeps its number. The others have to make do with a few numbers between them, and the one
//! asked for longest ago gives its number to a new one: nothing was learned under it but refusals. So
//! whoever invents models takes nothing from those that exist.
//!
//! An upstream may answer to any name. Once no number is left, a name that was answered and has not
//! been asked for among the last [`IDLE_ASKED`] requests loses its number, and what was learned under
//! it, to one that is asked for now; if there is none the newcomers share the last class.

use crate::settings::{Organisation, QuotaByClass};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tidegate_schedule::{ClassId, Limits};
use tidegate_wire::models;

/// Different classes that get a quota domain of their own; what comes after shares the last one.
const CLASSES_MAX: usize = 256;
/// Of these, classes for which no upstream has answered yet.
const UNPROVEN_MAX: usize = 64;
/// So many requests later a class that was not among them is idle. More than there are classes, so that
/// those in use do not take turns.
const IDLE_ASKED: u64 = 16 * CLASSES_MAX as u64;

/// Stands for every class of models that has no limits of its own.
const DEFAULT: &str = "default";

/// The classes seen so far.
#[derive(Debug, Default)]
pub(crate) struct Classes {
    all: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// Names that the configuration has limits for.
    configured: BTreeSet<String>,
    seats: BTreeMap<String, Seat>,
    /// Numbers that were given out.
    numbers: usize,
    /// How often a class was asked for.
    asked: u64,
}

#[derive(Clone, Copy, Debug)]
struct Seat {
    class: ClassId,
    is_proven: bool,
    is_configured: bool,
    asked: u64,
}

/// A number for a class.
enum Number {
    /// Nobody had it before.
    Fresh(ClassId),
    /// It was another's for which no upstream ever answered.
    Handed(ClassId),
    /// It would be another's that is idle, of this name.
    Idle(ClassId, String),
}

/// A request's class.
#[derive(Clone, Debug)]
pub(crate) struct Classed {
    pub(crate) class: ClassId,
    /// Its name, if it is kept only once an upstream answers.
    unproven: Option<Box<str>>,
}

/// Whether the default limits of models hold for the class called `name`.
fn is_of_models(name: &str) -> bool {
    !name.contains('/') && name != "models"
}

impl Table {
    /// A number for a class called `name`.
    fn number(&mut self, name: &str, is_configured: bool, most: usize) -> Option<Number> {
        let unproven = self.seats.iter().filter(|(_, seat)| !seat.is_proven);
        let is_room = is_configured || unproven.clone().count() < UNPROVEN_MAX;
        if is_room && self.numbers < most {
            self.numbers += 1;
            return Some(Number::Fresh(ClassId(self.numbers as u32 - 1)));
        }
        // The scheduler was told the same limits for all of a kind.
        let of_a_kind = unproven.filter(|(other, _)| is_of_models(other) == is_of_models(name));
        if let Some((oldest, seat)) = of_a_kind.min_by_key(|(_, seat)| seat.asked) {
            let (oldest, class) = (oldest.clone(), seat.class);
            self.seats.remove(&oldest);
            return Some(Number::Handed(class));
        }
        let idle = self.seats.iter().filter(|(_, seat)| !seat.is_configured && seat.asked + IDLE_ASKED < self.asked);
        idle.min_by_key(|(_, seat)| seat.asked).map(|(name, seat)| Number::Idle(seat.class, name.clone()))
    }
}

impl Classes {
    pub(crate) fn new(organisations: &[Organisation]) -> Self {
        let classes = Classes::default();
        classes.configure(organisations);
        classes
    }

    /// The configuration is this now; every class there is, to be told its limits.
    pub(crate) fn configure(&self, organisations: &[Organisation]) -> Vec<(ClassId, String)> {
        let tables = organisations.iter().flat_map(|o| o.workspaces.iter().map(|w| &w.limits).chain([&o.limits]));
        let names = tables.flat_map(|limits| limits.keys()).filter(|name| *name != DEFAULT);
        let mut all = self.all();
        all.configured = names.cloned().collect();
        let Table { configured, seats, .. } = &mut *all;
        for (name, seat) in seats.iter_mut() {
            seat.is_configured = configured.contains(name);
            seat.is_proven |= seat.is_configured;
        }
        seats.iter().map(|(name, seat)| (seat.class, name.clone())).collect()
    }

    fn all(&self) -> MutexGuard<'_, Table> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The class of a request; `new` is told of one that was not there before, and says whether its
    /// number is free: requests of whoever had it before may still be under way.
    pub(crate) fn of(&self, door: &str, model: &str, fast: bool, new: impl FnOnce(ClassId, &str) -> bool) -> Classed {
        let pool = models::class(model);
        let joined;
        let name = match door {
            "messages" if fast => {
                joined = format!("fast/{pool}");
                &joined
            }
            "messages" => pool,
            "count_tokens" => {
                joined = format!("count_tokens/{pool}");
                &joined
            }
            "models" => door,
            // With a slash, as no model's name is taken for it.
            _ => {
                joined = format!("api/{door}");
                &joined
            }
        };
        let mut all = self.all();
        all.asked += 1;
        let asked = all.asked;
        if let Some(seat) = all.seats.get_mut(name) {
            seat.asked = asked;
            return Classed { class: seat.class, unproven: (!seat.is_proven).then(|| name.into()) };
        }
        let is_configured = all.configured.contains(name);
        // Those that the configuration names find room whenever they come.
        let most = if is_configured { CLASSES_MAX } else { CLASSES_MAX.saturating_sub(all.configured.len()) };
        let shared = Classed { class: ClassId(CLASSES_MAX as u32), unproven: None };
        let Some(number) = all.number(name, is_configured, most) else { return shared };
        // Before the lock is gone: nobody may ask for it with limits that are not known yet.
        let (class, before) = match number {
            Number::Fresh(class) => (class, None),
            Number::Idle(class, before) => (class, Some(before)),
            Number::Handed(class) => {
                all.seats.insert(name.to_owned(), Seat { class, is_proven: is_configured, is_configured, asked });
                return Classed { class, unproven: (!is_configured).then(|| name.into()) };
            }
        };
        if !new(class, name) {
            return shared;
        }
        if let Some(before) = before {
            all.seats.remove(&before);
        }
        all.seats.insert(name.to_owned(), Seat { class, is_proven: is_configured, is_configured, asked });
        Classed { class, unproven: (!is_configured).then(|| name.into()) }
    }

    /// An upstream answered a request of this class, so there is such a model.
    pub(crate) fn answered(&self, classed: &Classed) {
        let Some(name) = classed.unproven.as_deref() else { return };
        let mut all = self.all();
        let (class, asked) = (classed.class, all.asked);
        if !all.seats.contains_key(name) {
            // Another got its number meanwhile, and gives it back unless that one answered too.
            let holder = all.seats.iter().find(|(_, seat)| seat.class == class);
            let holder = holder.map(|(other, seat)| (other.clone(), seat.is_proven));
            match holder {
                Some((_, true)) => return,
                Some((other, false)) => drop(all.seats.remove(&other)),
                None => {}
            }
            all.seats.insert(name.to_owned(), Seat { class, is_proven: true, is_configured: false, asked });
        } else if let Some(seat) = all.seats.get_mut(name) {
            seat.is_proven = true;
        }
    }

    /// The name of a class.
    pub(crate) fn name(&self, class: ClassId) -> String {
        let all = self.all();
        let found = all.seats.iter().find(|(_, seat)| seat.class == class);
        found.map_or_else(|| "other".to_owned(), |(name, _)| name.clone())
    }

    /// What `quota` says of the class called `name`.
    pub(crate) fn quota(quota: &QuotaByClass, name: &str) -> Option<Limits> {
        quota.get(name).or_else(|| quota.get(DEFAULT).filter(|_| is_of_models(name))).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_metered_apart_has_a_class_of_its_own() {
        let classes = Classes::default();
        let mut made = Vec::new();
        let mut of = |door, model, fast| {
            classes
                .of(door, model, fast, |_, name| {
                    made.push(name.to_owned());
                    true
                })
                .class
                .0
        };
        assert_eq!(of("messages", "claude-opus-4-8", false), of("messages", "claude-opus-4-5-20251101", false));
        let others = [
            of("messages", "claude-opus-4-8", true),
            of("count_tokens", "claude-opus-4-8", false),
            of("models", "", false),
            of("messages", "claude-haiku-5-5", false),
        ];
        assert_eq!(others, [1, 2, 3, 4]);
        assert_eq!(
            made,
            ["claude-opus-4", "fast/claude-opus-4", "count_tokens/claude-opus-4", "models", "claude-haiku-5-5"]
        );
        assert_eq!(classes.name(ClassId(1)), "fast/claude-opus-4");
    }

    fn asked(classes: &Classes, model: &str) -> Classed {
        classes.of("messages", model, false, |_, _| true)
    }

    #[test]
    fn ten_thousand_invented_models_take_nothing_from_those_that_exist() {
        let named = Organisation {
            limits: QuotaByClass::from([("claude-opus-4".to_owned(), Limits::default())]),
            ..Organisation::default()
        };
        let classes = Classes::new(&[named]);
        let before = asked(&classes, "claude-sonnet-5");
        classes.answered(&before);
        let mut numbers = BTreeSet::new();
        for n in 0..10_000 {
            let invented = asked(&classes, &format!("m{n}"));
            numbers.insert(invented.class.0);
            assert!(invented.class != before.class);
        }
        assert_eq!(numbers.len(), UNPROVEN_MAX, "so many numbers between all of them");
        let seats = classes.all().seats.len();
        assert_eq!((seats, classes.all().numbers), (UNPROVEN_MAX + 1, UNPROVEN_MAX + 1));
        // What comes late is no worse off, whether the configuration knows it or an upstream does.
        let late = asked(&classes, "claude-haiku-6");
        let configured = asked(&classes, "claude-opus-4-8");
        classes.answered(&late);
        (0..1_000).for_each(|n| drop(asked(&classes, &format!("n{n}"))));
        for (model, kept) in [("claude-sonnet-5", before), ("claude-haiku-6", late), ("claude-opus-4-5", configured)] {
            let again = asked(&classes, model);
            assert_eq!((again.class, again.unproven), (kept.class, None), "{model}");
            assert_eq!(classes.name(kept.class), models::class(model));
        }
    }

    #[test]
    fn a_model_whose_number_went_to_another_gets_it_back_when_it_answers() {
        let classes = Classes::default();
        let slow = asked(&classes, "slow");
        (0..UNPROVEN_MAX).for_each(|n| drop(asked(&classes, &format!("m{n}"))));
        assert_ne!(classes.name(slow.class), "slow");
        classes.answered(&slow);
        assert_eq!((asked(&classes, "slow").class, classes.name(slow.class).as_str()), (slow.class, "slow"));
        assert_eq!(classes.all().seats.values().filter(|seat| seat.class == slow.class).count(), 1);
    }

    #[test]
    fn models_without_end_that_do_answer_share_the_last_class() {
        let classes = Classes::default();
        let of = |n: usize| {
            let classed = asked(&classes, &format!("m{n}"));
            classes.answered(&classed);
            classed.class.0
        };
        (0..1_000).for_each(|n| assert_eq!(of(n), n.min(CLASSES_MAX) as u32));
        assert_eq!((of(0), of(255), of(5_000)), (0, 255, CLASSES_MAX as u32));
        assert_eq!(classes.name(ClassId(CLASSES_MAX as u32)), "other");
    }

    #[test]
    fn what_is_no_longer_asked_for_gives_way_once_all_numbers_are_taken() {
        let named = Organisation {
            limits: QuotaByClass::from([("claude-opus-4".to_owned(), Limits::default())]),
            ..Organisation::default()
        };
        let classes = Classes::new(&[named]);
        let configured = asked(&classes, "claude-opus-4-8").class;
        let answered = |model: &str| {
            let classed = asked(&classes, model);
            classes.answered(&classed);
            classed.class
        };
        let (used, left) = (answered("used"), answered("left"));
        let shared = ClassId(CLASSES_MAX as u32);
        for n in 0..CLASSES_MAX {
            answered(&format!("m{n}"));
        }
        assert_eq!(answered("late"), shared, "all were asked for lately");
        (0..=IDLE_ASKED).for_each(|_| assert_eq!(asked(&classes, "used").class, used));
        // Somebody is still served under it.
        assert_eq!(classes.of("messages", "late", false, |_, _| false).class, shared);
        let mut told = None;
        let late = classes.of("messages", "late", false, |class, name| {
            told = Some((class, name.to_owned()));
            true
        });
        assert_eq!((late.class, told), (left, Some((left, "late".to_owned()))), "what was asked for longest ago");
        assert_eq!((asked(&classes, "used").class, asked(&classes, "claude-opus-4-8").class), (used, configured));
        assert_eq!(classes.all().seats.len(), CLASSES_MAX - 1, "one was kept for what the configuration names");
    }

    #[test]
    fn a_number_goes_on_only_to_what_has_the_same_limits() {
        let classes = Classes::default();
        let models = asked(&classes, "m").class;
        for n in 0..1_000 {
            let counts = classes.of("count_tokens", &format!("c{n}"), false, |_, _| true);
            assert_ne!(counts.class, models);
        }
        assert_eq!(asked(&classes, "m").class, models);
    }

    #[test]
    fn a_default_is_for_models_only() {
        let limits = |n| Limits { requests: Some(n), ..Limits::default() };
        let quota = QuotaByClass::from([("default".to_owned(), limits(1)), ("claude-opus-4".to_owned(), limits(2))]);
        let of = |name| Classes::quota(&quota, name).and_then(|l| l.requests);
        assert_eq!((of("claude-opus-4"), of("claude-haiku-5-5")), (Some(2), Some(1)));
        assert_eq!((of("models"), of("count_tokens/claude-opus-4"), of("fast/claude-opus-4")), (None, None, None));
    }
}
