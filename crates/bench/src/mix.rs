//! Requests that differ: each of a run has a prompt of its own, belongs to a class with header lines
//! of its own, and is sent with the next of several keys.
//!
//! What a request is depends on the plan's seed and on its number in the run, and on nothing that
//! happens meanwhile: two runs of one plan at two endpoints ask for the same, request by request.
//! Lengths are spread evenly by their logarithm: most prompts are short, a few are long.

use crate::plan::{BenchError, Plan};
use crate::request::{Form, Request, body};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tidegate_base::{Prng, Secret};

/// Classes of a run: each has a histogram.
const CLASSES_MAX: usize = 16;
/// Keys of a run: a head is kept for each of them in each class.
const KEYS_MAX: usize = 1_000;

/// Some of the requests of a run, told apart in the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    /// Its name in the report.
    pub name: String,
    /// Its share of the requests, beside the others' shares.
    pub weight: u32,
    /// Header lines besides the plan's.
    pub headers: Vec<(String, String)>,
}

/// What differs between the requests of one run; everything else is the plan's.
#[derive(Clone, Debug)]
pub struct Mix {
    /// Whom requests belong to, drawn by weight.
    pub classes: Vec<Class>,
    /// Keys taken in turn by whatever is sent, repeated attempts included; none leaves the plan's.
    pub keys: Vec<Secret>,
    /// Prompts are from the plan's `prompt_bytes` to so long.
    pub prompt_bytes_max: usize,
}

impl Mix {
    pub(crate) fn check(&self, plan: &Plan) -> Result<(), BenchError> {
        let within = |ok: bool, what: String| if ok { Ok(()) } else { Err(BenchError::Plan(what)) };
        let classes = (1..=CLASSES_MAX).contains(&self.classes.len()) && self.classes.iter().any(|c| c.weight > 0);
        within(classes, format!("a mix has 1 to {CLASSES_MAX} classes, not all of weight 0"))?;
        within(self.keys.len() <= KEYS_MAX, format!("a mix has at most {KEYS_MAX} keys"))?;
        let longest = self.prompt_bytes_max >= plan.prompt_bytes;
        within(longest, "the longest prompt of a mix is not shorter than its shortest".to_owned())
    }

    /// The mean length of prompts that are at least `shortest` bytes long.
    pub fn prompt_bytes_mean(&self, shortest: usize) -> f64 {
        let (low, high) = (shortest as f64, self.prompt_bytes_max as f64);
        if high > low { (high - low) / (high / low).ln() } else { low }
    }
}

/// Where the bodies come from.
enum Bodies {
    /// One for all.
    Same(Bytes),
    /// Each its own, by the plan and its mix.
    Each(Box<Plan>, Mix),
}

/// The requests of a run.
pub(crate) struct Requests {
    bodies: Bodies,
    /// By class, by key.
    forms: Vec<Vec<Arc<Form>>>,
    seeds: Prng,
    turn: AtomicUsize,
}

/// One request before it is sent with this key or that.
pub(crate) struct Drawn {
    pub(crate) class: usize,
    body: Bytes,
}

impl Requests {
    /// Those that `plan` describes.
    pub(crate) fn of(plan: &Plan) -> Result<Self, BenchError> {
        let forms = |class: &Class, keys: &[Secret]| {
            let keys: Vec<_> = if keys.is_empty() { vec![plan.key.as_ref()] } else { keys.iter().map(Some).collect() };
            keys.into_iter().map(|key| Form::of(plan, key, &class.headers).map(Arc::new)).collect::<Result<Vec<_>, _>>()
        };
        let (bodies, forms) = match &plan.mix {
            Some(mix) => {
                let forms = mix.classes.iter().map(|class| forms(class, &mix.keys)).collect::<Result<_, _>>()?;
                (Bodies::Each(Box::new(plan.clone()), mix.clone()), forms)
            }
            None => {
                let only = Class { name: String::new(), weight: 1, headers: Vec::new() };
                (Bodies::Same(body(plan, plan.prompt_bytes, plan.seed)), vec![forms(&only, &[])?])
            }
        };
        Ok(Requests { bodies, forms, seeds: Prng::new(plan.seed).fork("mix"), turn: AtomicUsize::new(0) })
    }

    /// The request of this number.
    pub(crate) fn draw(&self, number: u64) -> Drawn {
        let (plan, mix) = match &self.bodies {
            Bodies::Same(body) => return Drawn { class: 0, body: body.clone() },
            Bodies::Each(plan, mix) => (plan, mix),
        };
        let mut prng = self.seeds.fork(&number.to_string());
        let mut left = prng.below(mix.classes.iter().map(|class| u64::from(class.weight)).sum());
        let here = |class: &Class| {
            let here = left < u64::from(class.weight);
            left = left.saturating_sub(u64::from(class.weight));
            here
        };
        let class = mix.classes.iter().position(here).unwrap_or(0);
        let (low, high) = (plan.prompt_bytes as f64, mix.prompt_bytes_max as f64);
        let prompt_bytes = (low * (high / low).powf(prng.unit())).round() as usize;
        Drawn { class, body: body(plan, prompt_bytes, prng.next_u64()) }
    }

    /// It as it is sent this time, with the key whose turn it is.
    pub(crate) fn attempt(&self, drawn: &Drawn) -> Request {
        let forms = &self.forms[drawn.class];
        let turn = if forms.len() == 1 { 0 } else { self.turn.fetch_add(1, Ordering::Relaxed) % forms.len() };
        Request::new(&forms[turn], &drawn.body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::collections::{BTreeMap, BTreeSet};
    use tidegate_wire::http::parse_request;

    fn plan() -> Plan {
        let class = |name: &str, weight| Class {
            name: name.to_owned(),
            weight,
            headers: vec![("x-class".to_owned(), name.to_owned())],
        };
        let mut plan = Plan::new("http://a:1");
        plan.prompt_bytes = 100;
        plan.mix = Some(Mix {
            classes: vec![class("quick", 30), class("usual", 50), class("never", 0), class("slow", 20)],
            keys: ["k1", "k2", "k3"].map(Secret::new).to_vec(),
            prompt_bytes_max: 8_000,
        });
        plan
    }

    fn sent(requests: &Requests, drawn: &Drawn) -> (String, String, usize) {
        let request = requests.attempt(drawn);
        let head = parse_request(&mut request.head()).unwrap().unwrap();
        let text = |name: &str| head.headers.text(name).unwrap_or_default().to_owned();
        assert_eq!(text("content-length"), request.body.len().to_string());
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        (text("x-class"), text("x-api-key"), body["messages"][0]["content"].as_str().map_or(0, str::len))
    }

    #[test]
    fn requests_are_of_every_class_by_its_weight_and_prompts_of_every_length() {
        let plan = plan();
        let requests = Requests::of(&plan).unwrap();
        let (mut classes, mut lengths) = (BTreeMap::<String, u64>::new(), Vec::new());
        for number in 0..2_000 {
            let (class, _, length) = sent(&requests, &requests.draw(number));
            *classes.entry(class).or_default() += 1;
            lengths.push(length);
        }
        // 600, 1,000 and 400 expected; the standard deviations are 20, 22 and 18.
        let near = |name: &str, want: u64| classes[name].abs_diff(want) < 100;
        assert!(near("quick", 600) && near("usual", 1_000) && near("slow", 400) && classes.len() == 3, "{classes:?}");
        assert!(lengths.iter().all(|n| (100..=8_000).contains(n)));
        let below = |limit| lengths.iter().filter(|n| **n < limit).count();
        assert!((900..1_100).contains(&below(894)), "half are below the geometric mean: {}", below(894));
        let mean = lengths.iter().sum::<usize>() as f64 / 2_000.0;
        let want = plan.mix.as_ref().unwrap().prompt_bytes_mean(100);
        assert!((want - 1_802.8).abs() < 0.1 && (mean / want - 1.0).abs() < 0.1, "{mean} {want}");
    }

    #[test]
    fn a_number_is_the_same_request_in_every_run_and_another_number_another() {
        let (a, b) = (Requests::of(&plan()).unwrap(), Requests::of(&plan()).unwrap());
        let body = |requests: &Requests, number| requests.draw(number).body;
        assert!((0..50).all(|n| body(&a, n) == body(&b, n)));
        let different: BTreeSet<Bytes> = (0..50).map(|n| body(&a, n)).collect();
        assert_eq!(different.len(), 50);
        let other = Requests::of(&Plan { seed: 2, ..plan() }).unwrap();
        assert_ne!(body(&a, 0), body(&other, 0));
    }

    #[test]
    fn keys_take_turns_and_a_repeated_attempt_has_the_next() {
        let requests = Requests::of(&plan()).unwrap();
        let (first, second) = (requests.draw(0), requests.draw(1));
        let keys = [&first, &second, &second, &first].map(|drawn| sent(&requests, drawn).1);
        assert_eq!(keys, ["k1", "k2", "k3", "k1"]);
        let mut plan = plan();
        plan.key = Some(Secret::new("own"));
        plan.mix.as_mut().unwrap().keys.clear();
        let requests = Requests::of(&plan).unwrap();
        assert_eq!(sent(&requests, &requests.draw(7)).1, "own");
    }

    #[test]
    fn a_mix_that_cannot_be_drawn_is_refused() {
        let check = |change: fn(&mut Mix)| {
            let mut plan = plan();
            plan.mix.as_mut().map(change);
            plan.check_numbers().err().map(|e| e.to_string()).unwrap_or_default()
        };
        assert_eq!(check(|_| {}), "");
        assert!(check(|mix| mix.classes.clear()).contains("classes"));
        assert!(check(|mix| mix.classes.iter_mut().for_each(|c| c.weight = 0)).contains("weight 0"));
        assert!(check(|mix| mix.prompt_bytes_max = 99).contains("longest prompt"));
        assert!(check(|mix| mix.prompt_bytes_max = 40_000_000).contains("prompt"));
    }
}
