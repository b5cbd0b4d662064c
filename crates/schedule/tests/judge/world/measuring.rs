//! What is looked at every 50 ms: the streams' progress, the limiters, who got how much.

use super::{Event, State, TICK, World, seconds};
use crate::figures::{UNCOUNTED, Window};
use std::fmt::Write as _;

/// `TIDEGATE_JUDGE_TRACE=240-255`: the seconds in which every look is printed.
pub(super) fn seconds_to_trace() -> Option<(f64, f64)> {
    let text = std::env::var("TIDEGATE_JUDGE_TRACE").ok()?;
    let (from, until) = text.split_once('-')?;
    Some((from.parse().ok()?, until.parse().ok()?))
}

impl World<'_> {
    pub(super) fn tick(&mut self) {
        let now = seconds(self.now);
        self.progress(now);
        self.orgs.iter_mut().for_each(|org| org.foreign_takes(now, TICK));
        self.measure(now);
        self.trace(now);
        if (self.now.as_nanos() / 50_000_000).is_multiple_of(20) {
            self.figures.difference = self.figures.difference.max(self.policy.difference().abs());
        }
        self.settle_down();
        self.push_in(TICK, Event::Tick);
    }

    /// What the streams have brought since the last look.
    fn progress(&mut self, now: f64) {
        let mut produced = Vec::new();
        for (slot, request) in self.requests.iter_mut().enumerate() {
            let State::Streaming(_, since) = request.state else { continue };
            let there = ((now - since) * request.sizes.speed).min(request.sizes.output) as u32;
            let new = there.saturating_sub(request.seen);
            if new == 0 {
                continue;
            }
            request.seen = there;
            self.window.served[request.ask.tenant.0 as usize] += self.cost[1] * f64::from(new);
            if request.ask.seen {
                produced.push((slot, new));
            }
        }
        if !produced.is_empty() {
            self.policy.progressed(self.now, &produced);
        }
    }

    /// Use of the binding limits, and the windows of fairness.
    fn measure(&mut self, now: f64) {
        if self.stopped {
            return;
        }
        let classes = self.scenario.binding.len();
        for (n, before) in self.before.iter_mut().enumerate() {
            let (org, class) = (n / classes, n % classes);
            let sums = self.orgs[org].sums(now, class, self.scenario.binding[class] as usize);
            if let Some((before, waited)) = before.filter(|_| now > UNCOUNTED) {
                let [waiting, always] = &mut self.figures.uses[n];
                always.add(&before, &sums);
                if waited {
                    waiting.add(&before, &sums);
                }
            }
            *before = Some((sums, self.class_backlog[class] > 0));
        }
        for (always, backlog) in self.window.always.iter_mut().zip(&self.backlog) {
            *always &= *backlog > 0;
        }
        if now >= self.scenario.window * (self.figures.windows.len() + 1) as f64 - TICK / 2.0 {
            let tenants = self.backlog.len();
            let fresh = Window { served: vec![0.0; tenants], always: vec![true; tenants] };
            self.figures.windows.push(std::mem::replace(&mut self.window, fresh));
        }
    }

    /// Prints what is in the limiters of the first organisation and what the policy believes of it.
    fn trace(&mut self, now: f64) {
        let Some((from, until)) = self.traced else { return };
        if now < from || now > until {
            return;
        }
        let mut text = format!("{now:.2} s leased {} waiting {}", self.policy.leased(), self.class_backlog[0]);
        for (which, name) in ["requests", "input", "output"].into_iter().enumerate() {
            let level = self.orgs[0].sums(now, 0, which).level;
            let _ = write!(text, " | {name} {level:.0}");
            if let Some([low, high, rate, others]) = self.policy.believed(self.now, 0, which) {
                let _ = write!(text, " low {low:.0} high {high:.0} rate {rate:.1} others {others:.0}");
            }
        }
        println!("{text}");
    }
}
