//! A run while it runs: the numbers, and showing them as a bar or as a line now and then.

use crate::plan::Plan;
use crate::table::grouped;
use crate::tally::Tally;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How often a line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// Steps of the bar.
const BAR_STEPS: u64 = 1000;

/// How far a run is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Since the first request was due; zero before that.
    pub elapsed: Duration,
    /// For how long requests are started, if that is limited.
    pub sending_span: Option<Duration>,
    /// How many requests there will be, if that is limited.
    pub requests: Option<u64>,
    /// Requests begun.
    pub started: u64,
    /// Requests answered.
    pub ok: u64,
    /// Requests failed.
    pub failed: u64,
    /// Events received.
    pub events: u64,
    /// Bytes of bodies received.
    pub bytes: u64,
}

impl Progress {
    pub(crate) fn of(plan: &Plan, elapsed: Duration, tallies: &[Arc<Mutex<Tally>>]) -> Self {
        let mut progress =
            Progress { elapsed, sending_span: plan.sending_span(), requests: plan.requests, ..Progress::default() };
        for tally in tallies {
            let tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
            progress.started += tally.started;
            progress.ok += tally.ok;
            progress.failed += tally.failed;
            progress.events += tally.events;
            progress.bytes += tally.bytes;
        }
        progress
    }

    /// Requests begun and not ended.
    pub fn under_way(&self) -> u64 {
        self.started.saturating_sub(self.ok + self.failed)
    }

    /// The part of the run that is over, from 0 to 1.
    pub fn fraction(&self) -> f64 {
        let of_time = self.sending_span.map_or(0.0, |span| self.elapsed.as_secs_f64() / span.as_secs_f64());
        let of_requests = self.requests.map_or(0.0, |n| (self.ok + self.failed) as f64 / n as f64);
        of_time.max(of_requests).clamp(0.0, 1.0)
    }

    /// One line of it, with the rates since `before`.
    fn line(&self, before: &Progress) -> String {
        let span_s = self.elapsed.saturating_sub(before.elapsed).as_secs_f64();
        let rate = |now: u64, then: u64| if span_s > 0.0 { now.saturating_sub(then) as f64 / span_s } else { 0.0 };
        format!(
            "{:.1} s: {} ok, {} failed, {} under way, {} requests/s, {} events/s",
            self.elapsed.as_secs_f64(),
            grouped(self.ok),
            grouped(self.failed),
            grouped(self.under_way()),
            grouped(rate(self.ok + self.failed, before.ok + before.failed).round() as u64),
            grouped(rate(self.events, before.events).round() as u64),
        )
    }
}

enum Surface {
    Bar(ProgressBar),
    Lines(Box<dyn Write + Send>),
}

/// Shows progress.
pub struct ProgressView {
    surface: Surface,
    before: Progress,
}

impl ProgressView {
    /// On standard error: a bar if that is a terminal, else a line every 5 s.
    pub fn on_stderr() -> Self {
        if !std::io::stderr().is_terminal() {
            return Self::lines(std::io::stderr());
        }
        let bar = ProgressBar::with_draw_target(Some(BAR_STEPS), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{bar:24} {msg}") {
            bar.set_style(style);
        }
        ProgressView { surface: Surface::Bar(bar), before: Progress::default() }
    }

    /// A line every 5 s, into `writer`. What cannot be written is dropped: progress is a courtesy.
    pub fn lines(writer: impl Write + Send + 'static) -> Self {
        ProgressView { surface: Surface::Lines(Box::new(writer)), before: Progress::default() }
    }

    /// Shows `progress`, if it is time to.
    pub fn show(&mut self, progress: &Progress) {
        match &mut self.surface {
            Surface::Bar(bar) => {
                bar.set_position((progress.fraction() * BAR_STEPS as f64) as u64);
                bar.set_message(progress.line(&self.before));
                // The rates in the line are those of the last second or so, not of a quarter.
                if progress.elapsed >= self.before.elapsed + Duration::from_secs(1) {
                    self.before = *progress;
                }
            }
            Surface::Lines(writer) => {
                if progress.elapsed >= self.before.elapsed + LINE_EVERY {
                    let _ = writeln!(writer, "{}", progress.line(&self.before));
                    self.before = *progress;
                }
            }
        }
    }

    /// Clears the bar away, so that the report can follow.
    pub fn finish(self) {
        if let Surface::Bar(bar) = self.surface {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_come_every_five_seconds_with_the_rates_since_the_last() {
        let paper = Paper::default();
        let mut view = ProgressView::lines(paper.clone());
        for s in 0..=12u64 {
            let progress = Progress {
                elapsed: Duration::from_secs(s),
                started: 100 * s + 3,
                ok: 100 * s,
                events: 1000 * s * s,
                ..Progress::default()
            };
            view.show(&progress);
        }
        view.finish();
        let text = String::from_utf8(paper.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "5.0 s: 500 ok, 0 failed, 3 under way, 100 requests/s, 5,000 events/s",
                "10.0 s: 1,000 ok, 0 failed, 3 under way, 100 requests/s, 15,000 events/s",
            ]
        );
    }

    #[test]
    fn the_fraction_is_that_of_whichever_end_is_nearer() {
        let mut progress =
            Progress { elapsed: Duration::from_secs(1), requests: Some(10), ok: 4, failed: 1, ..Progress::default() };
        assert_eq!(progress.fraction(), 0.5);
        progress.sending_span = Some(Duration::from_secs(1));
        assert_eq!(progress.fraction(), 1.0);
    }
}
