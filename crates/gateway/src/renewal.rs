//! Other settings while requests run: what becomes of the old ones, and who has which.
//!
//! ```text
//!   settings ─▶ arrange ─▶ a new house beside the old one ─▶ current ─▶ requests that come
//!                              └ the same scheduler, store, streams, budgets
//!   requests under way ─▶ the house they came to, until they end
//! ```
//! Organisations and keys are numbers to the scheduler, so numbers stay: one that is gone keeps its
//! place, closed, and one that comes gets a new place. A key that is changed is one that goes and one
//! that comes. Places are never used twice, which bounds how often that can happen before a restart.
//!
//! Some of the settings are built into what lives as long as the process; they keep their first value
//! ([`Settings::fixed`]).

use crate::house::House;
use crate::settings::{Organisation, Settings, Workspace};
use std::sync::{Arc, Mutex, PoisonError};
use tidegate_schedule::WorkspaceId;

/// Organisations in the life of a process, those that are gone among them.
const ORGANISATIONS_MAX: usize = 1_024;
/// Keys of one organisation likewise; a configuration has at most 1,000 of them at once.
const KEYS_MAX: usize = 16_384;
/// Tenants likewise: each takes some hundred bytes here and in the scheduler.
const TENANTS_MAX: usize = 262_144;

/// The house as it is now. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Current(Arc<Mutex<Arc<House>>>);

impl Current {
    pub(crate) fn new(house: Arc<House>) -> Self {
        Current(Arc::new(Mutex::new(house)))
    }

    pub(crate) fn house(&self) -> Arc<House> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts a house of other settings in place of the one that is there.
    pub(crate) fn renew(&self, settings: Settings) -> Result<(), String> {
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let settings = settings.fixed(&current.settings);
        let organisations = arrange(&current.settings.organisations, settings.organisations)?;
        let own_credentials = same_lane(&current, settings.own_credentials);
        let settings = Settings { organisations, own_credentials, ..settings };
        let came = settings.keys.iter().filter(|key| current.tenants.named(&key.tenant).is_none()).count();
        if current.tenants.len() + came + settings.tenants.len() > TENANTS_MAX {
            return Err(worn_out("tenants", TENANTS_MAX));
        }
        *current = Arc::new(current.renewed(settings));
        Ok(())
    }
}

/// The lane that is there, if it is the same: its connections are kept.
fn same_lane(current: &House, new: Option<Arc<tidegate_upstream::Lane>>) -> Option<Arc<tidegate_upstream::Lane>> {
    let before = &current.settings.own_credentials;
    if before.as_deref() == new.as_deref() { before.clone() } else { new }
}

impl Settings {
    /// These settings, but for what cannot change while the process runs: that stays as it was `before`.
    pub fn fixed(self, before: &Settings) -> Self {
        let mut new = self;
        let (limits, fixed) = (&mut new.limits, &before.limits);
        limits.connections = fixed.connections;
        limits.streams = fixed.streams;
        limits.bodies_bytes = fixed.bodies_bytes;
        limits.backlogs_bytes = fixed.backlogs_bytes;
        limits.journals_bytes = fixed.journals_bytes;
        new.clocks.stream_kept = before.clocks.stream_kept;
        new.conversations.memory_bytes = before.conversations.memory_bytes;
        new.pass_through.speaks_tls = before.pass_through.speaks_tls;
        new.pool = before.pool;
        new.seed = before.seed;
        new
    }
}

fn worn_out(what: &str, most: usize) -> String {
    format!("more than {most} {what} came and went since the start: needs a restart")
}

/// The organisations of new settings at the places of those that were there.
pub(crate) fn arrange(before: &[Organisation], new: Vec<Organisation>) -> Result<Vec<Organisation>, String> {
    let mut new: Vec<Option<Organisation>> = new.into_iter().map(Some).collect();
    let mut arranged = Vec::with_capacity(before.len());
    for old in before {
        let called_so = |o: &Organisation| o.name == old.name;
        // Under another name it is the same one, if one of its keys is there.
        let renamed = |o: &Organisation| before.iter().all(|known| known.name != o.name) && shares_key(old, o);
        let at = |is_it: &dyn Fn(&Organisation) -> bool| new.iter().position(|o| o.as_ref().is_some_and(is_it));
        let same = at(&called_so).or_else(|| at(&renamed)).and_then(|n| new.get_mut(n));
        arranged.push(match same.and_then(Option::take) {
            Some(new) => changed(old, new)?,
            None => gone(old),
        });
    }
    arranged.extend(new.into_iter().flatten());
    if arranged.len() > ORGANISATIONS_MAX {
        return Err(worn_out("organisations", ORGANISATIONS_MAX));
    }
    Ok(arranged)
}

/// Whether one of the keys of `old` that are in use is one of those of `new`.
fn shares_key(old: &Organisation, new: &Organisation) -> bool {
    let of_old: Vec<_> = old.open_keys().map(|key| &old.lanes[usize::from(key)]).collect();
    new.lanes.iter().any(|lane| of_old.iter().any(|known| known.is_same_key(lane)))
}

/// One that is no longer configured: its names and keys stay for what is under way.
fn gone(old: &Organisation) -> Organisation {
    let workspaces = old.workspaces.iter().map(|w| Workspace { name: w.name.clone(), ..Workspace::default() });
    Organisation {
        closed: (0..old.lanes.len()).map(|key| key as u16).collect(),
        limits: Default::default(),
        workspaces: workspaces.collect(),
        ..old.clone()
    }
}

/// One that is still configured: its keys at the places where they were, new ones behind them.
fn changed(old: &Organisation, new: Organisation) -> Result<Organisation, String> {
    let mut arranged = gone(old);
    arranged.name = new.name;
    (arranged.limits, arranged.reserves_output, arranged.models) = (new.limits, new.reserves_output, new.models);
    let mut places = Vec::with_capacity(new.workspaces.len());
    for workspace in new.workspaces {
        let at = arranged.workspaces.iter().position(|known| known.name == workspace.name);
        let at = at.unwrap_or(arranged.workspaces.len());
        if at == arranged.workspaces.len() {
            arranged.workspaces.push(workspace);
        } else {
            arranged.workspaces[at] = workspace;
        }
        places.push(WorkspaceId(at as u16));
    }
    arranged.lane_workspaces.resize(arranged.lanes.len(), None);
    for (key, lane) in new.lanes.into_iter().enumerate() {
        let workspace = new.lane_workspaces.get(key).copied().flatten();
        let workspace = workspace.and_then(|w| places.get(usize::from(w.0)).copied());
        let is_free = |n: &usize| !old.closed.contains(&(*n as u16)) && arranged.closed.contains(&(*n as u16));
        let known = (0..old.lanes.len()).filter(is_free);
        let known =
            known.into_iter().find(|n| old.lanes[*n].is_same_key(&lane) && arranged.lane_workspaces[*n] == workspace);
        match known {
            Some(n) => {
                arranged.closed.remove(&(n as u16));
                // It may stand in another line now, and be called by that.
                if old.lanes[n].label != lane.label {
                    arranged.lanes[n] = lane;
                }
            }
            None => {
                arranged.lanes.push(lane);
                arranged.lane_workspaces.push(workspace);
            }
        }
    }
    if arranged.lanes.len() > KEYS_MAX {
        return Err(worn_out(&format!("keys of {}", arranged.name), KEYS_MAX));
    }
    Ok(arranged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use tidegate_base::Secret;
    use tidegate_upstream::{Lane, Scheme};

    fn lane(label: &str, key: &str) -> Arc<Lane> {
        Arc::new(Lane::new(label, "http://a", Scheme::ApiKey, Secret::new(key)).unwrap())
    }

    fn org(name: &str, keys: &[&str]) -> Organisation {
        let lanes = keys.iter().enumerate().map(|(n, key)| lane(&format!("{name}/{}", n + 1), key));
        Organisation::new(name, lanes.collect())
    }

    fn open(o: &Organisation) -> Vec<(u16, String)> {
        o.open_keys().map(|key| (key, o.lanes[usize::from(key)].label.clone())).collect()
    }

    #[test]
    fn who_stays_keeps_the_place_and_the_connections() {
        let before = vec![org("north", &["a", "b"]), org("south", &["c"])];
        let after = arrange(&before, vec![org("east", &["d"]), org("north", &["a", "b"])]).unwrap();
        assert_eq!(after.iter().map(|o| o.name.as_str()).collect::<Vec<_>>(), ["north", "south", "east"]);
        assert!(Arc::ptr_eq(&after[0].lanes[0], &before[0].lanes[0]) && after[0].closed.is_empty());
        assert_eq!(after[1].closed, BTreeSet::from([0]), "it is gone, and what is under way still finds it");
        assert!(!after[1].is_open() && after[2].is_open());
    }

    #[test]
    fn what_models_are_called_there_changes() {
        let calling = |model: &str| Organisation {
            models: [("claude-opus-5-5".to_owned(), model.to_owned())].into(),
            ..org("north", &["a"])
        };
        let after = arrange(&[calling("old")], vec![calling("new")]).unwrap();
        assert_eq!((after[0].their_model("claude-opus-5-5"), after[0].closed.len()), (Some("new"), 0));
    }

    #[test]
    fn a_key_that_moves_and_an_organisation_that_is_renamed_stay_what_they_are() {
        let before = vec![org("north", &["a", "b"]), org("south", &["c"])];
        let after = arrange(&before, vec![org("north", &["b", "a"]), org("south", &["c"])]).unwrap();
        assert_eq!(open(&after[0]), [(0, "north/2".to_owned()), (1, "north/1".to_owned())]);
        let after = arrange(&after, vec![org("east", &["d"]), org("north-1", &["new", "a"]), org("south", &["c"])]);
        let after = after.unwrap();
        assert_eq!(after.iter().map(|o| o.name.as_str()).collect::<Vec<_>>(), ["north-1", "south", "east"]);
        assert_eq!(open(&after[0]), [(0, "north-1/2".to_owned()), (2, "north-1/1".to_owned())]);
        let swapped = arrange(&before, vec![org("north", &["c"]), org("south", &["a"])]).unwrap();
        assert_eq!((open(&swapped[0])[0].0, open(&swapped[1])[0].0), (2, 1), "a name goes before a key");
    }

    #[test]
    fn another_secret_is_another_key_at_another_place() {
        let before = vec![org("north", &["a", "b"])];
        let after = arrange(&before, vec![org("north", &["a", "new"])]).unwrap();
        assert_eq!(open(&after[0]), [(0, "north/1".to_owned()), (2, "north/2".to_owned())]);
        let back = arrange(&after, vec![org("north", &["a", "b"])]).unwrap();
        assert_eq!(open(&back[0]).last().unwrap().0, 3, "connections of a place that was closed are closed");
    }

    #[test]
    fn workspaces_are_found_by_their_names() {
        let in_workspaces = |names: &[&str]| Organisation {
            workspaces: names.iter().map(|n| Workspace { name: (*n).to_owned(), ..Workspace::default() }).collect(),
            lane_workspaces: (0..names.len()).map(|n| Some(WorkspaceId(n as u16))).collect(),
            ..org("north", &["a", "b"][..names.len()])
        };
        let after = arrange(&[in_workspaces(&["x", "y"])], vec![in_workspaces(&["y", "x"])]).unwrap();
        assert_eq!(after[0].workspaces.iter().map(|w| w.name.as_str()).collect::<Vec<_>>(), ["x", "y"]);
        let of = |key: u16| after[0].workspace(key).map(|w| w.0);
        let keys: Vec<_> = after[0].open_keys().map(|key| (key, of(key))).collect();
        assert_eq!(keys, [(2, Some(1)), (3, Some(0))], "the same keys in other workspaces are other keys");
    }

    #[test]
    fn keys_that_come_and_go_for_ever_need_a_restart() {
        let old = lane("north/1", "old");
        let worn = |keys: usize| Organisation {
            closed: (0..keys as u16).collect(),
            ..Organisation::new("north", vec![Arc::clone(&old); keys])
        };
        let one_more = || vec![org("north", &["one-more"])];
        assert!(arrange(&[worn(KEYS_MAX - 1)], one_more()).is_ok());
        let refused = arrange(&[worn(KEYS_MAX)], one_more()).unwrap_err();
        assert!(refused.contains("keys of north") && refused.contains("restart"), "{refused}");
    }

    #[test]
    fn what_is_built_into_the_process_stays() {
        let mut new = Settings::default();
        new.limits.connections = 7;
        new.limits.body_bytes = 7;
        new.clocks.stream_kept = std::time::Duration::ZERO;
        new.pass_through.speaks_tls = true;
        let (before, made) = (Settings::default(), new.fixed(&Settings::default()));
        assert_eq!((made.limits.connections, made.clocks), (before.limits.connections, before.clocks));
        assert_eq!(made.pass_through, before.pass_through);
        assert_eq!(made.limits.body_bytes, 7);
    }
}
