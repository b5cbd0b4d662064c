//! Classes of what is asked for: what the upstream meters together.
//!
//! A class is a pool of models, or one of the doors beside it: fast mode and counting tokens are
//! metered apart. Its name is that of the configuration and of the metrics; its number is the
//! scheduler's.

use crate::settings::QuotaByClass;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tidegate_schedule::{ClassId, Limits};
use tidegate_wire::models;

/// Different classes that get a quota domain of their own; a client that invents more shares the
/// last one.
const CLASSES_MAX: usize = 256;

/// Stands for every class of models that has no limits of its own.
const DEFAULT: &str = "default";

/// The classes seen so far.
#[derive(Debug, Default)]
pub(crate) struct Classes(Mutex<BTreeMap<String, ClassId>>);

impl Classes {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, ClassId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The class of a request; `new` is told of one that was not there before.
    pub(crate) fn of(&self, door: &str, model: &str, fast: bool, new: impl FnOnce(ClassId, &str)) -> ClassId {
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
            _ => door,
        };
        let mut all = self.all();
        if let Some(id) = all.get(name) {
            return *id;
        }
        let id = ClassId(all.len().min(CLASSES_MAX) as u32);
        if id.0 < CLASSES_MAX as u32 {
            all.insert(name.to_owned(), id);
            // Before the lock is gone: nobody may ask for it with limits that are not known yet.
            new(id, name);
        }
        id
    }

    /// The name of a class.
    pub(crate) fn name(&self, class: ClassId) -> String {
        self.all().iter().find(|(_, id)| **id == class).map_or_else(|| "other".to_owned(), |(name, _)| name.clone())
    }

    /// What `quota` says of the class called `name`.
    pub(crate) fn quota(quota: &QuotaByClass, name: &str) -> Option<Limits> {
        let is_models = !name.contains('/') && name != "models";
        quota.get(name).or_else(|| quota.get(DEFAULT).filter(|_| is_models)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_metered_apart_has_a_class_of_its_own() {
        let classes = Classes::default();
        let mut made = Vec::new();
        let mut of = |door, model, fast| classes.of(door, model, fast, |_, name| made.push(name.to_owned())).0;
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

    #[test]
    fn clients_cannot_make_classes_without_end() {
        let classes = Classes::default();
        let of = |n: usize| classes.of("messages", &format!("m{n}"), false, |_, _| {}).0;
        assert_eq!((of(0), of(255), of(1)), (0, 1, 2));
        (0..1_000).for_each(|n| assert!(of(n) <= CLASSES_MAX as u32));
        assert_eq!((of(5_000), of(5_001), of(0)), (CLASSES_MAX as u32, CLASSES_MAX as u32, 0));
        assert_eq!(classes.name(ClassId(CLASSES_MAX as u32)), "other");
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
