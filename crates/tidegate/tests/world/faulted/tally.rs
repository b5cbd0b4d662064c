//! What was seen over many worlds, in figures: by fault, by way of reading, and what became of
//! replies that were mended.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What became of the streams of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) streams: u64,
    pub(crate) whole: u64,
    pub(crate) broke: u64,
    pub(crate) refused: u64,
    /// Called off, left by everybody, or not kept any more.
    pub(crate) left: u64,
}

/// Readings through one door.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) readings: u64,
    /// Of these, with a cursor or from the beginning, of a stream that was asked for before.
    pub(crate) back: u64,
    pub(crate) left: u64,
    pub(crate) cut: u64,
}

/// Replies that broke off after content, once, with something that may be gone on from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mended {
    pub(crate) broke_off: u64,
    pub(crate) whole: u64,
    /// Of those that the recovery table says cannot be taken up: by what it broke off in.
    pub(crate) beyond: BTreeMap<String, u64>,
    pub(crate) seams: u64,
    pub(crate) exact: u64,
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) worlds: u64,
    pub(crate) faults: BTreeMap<String, Row>,
    pub(crate) places: BTreeMap<String, Row>,
    pub(crate) classes: BTreeMap<String, Row>,
    pub(crate) ways: BTreeMap<&'static str, Way>,
    pub(crate) mended: BTreeMap<&'static str, Mended>,
    pub(crate) codes: BTreeMap<String, u64>,
    pub(crate) all: Row,
    pub(crate) events: u64,
    pub(crate) joined: u64,
    pub(crate) text_bytes: u64,
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    /// Streams of which some reading was told other than one end.
    pub(crate) ends_wrong: u64,
    pub(crate) misused: u64,
    /// Turns that conversations' logs had in the end.
    pub(crate) turns: u64,
    /// A few of those that were not mended, or not exactly.
    pub(crate) remarks: Vec<String>,
}

/// Remarks that are kept.
pub(crate) const REMARKS_MAX: usize = 40;

impl Row {
    fn add(&mut self, other: &Row) {
        self.streams += other.streams;
        self.whole += other.whole;
        self.broke += other.broke;
        self.refused += other.refused;
        self.left += other.left;
    }

    fn cells(&self) -> String {
        format!("{} | {} | {} | {} | {}", self.streams, self.whole, self.broke, self.refused, self.left)
    }
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Tally) {
        self.worlds += other.worlds;
        for (mine, others) in
            [(&mut self.faults, &other.faults), (&mut self.places, &other.places), (&mut self.classes, &other.classes)]
        {
            for (name, row) in others {
                mine.entry(name.clone()).or_default().add(row);
            }
        }
        for (name, way) in &other.ways {
            let mine = self.ways.entry(name).or_default();
            mine.readings += way.readings;
            mine.back += way.back;
            mine.left += way.left;
            mine.cut += way.cut;
        }
        for (name, mended) in &other.mended {
            let mine = self.mended.entry(name).or_default();
            mine.broke_off += mended.broke_off;
            mine.whole += mended.whole;
            mine.seams += mended.seams;
            mine.exact += mended.exact;
            for (what, n) in &mended.beyond {
                *mine.beyond.entry(what.clone()).or_default() += n;
            }
        }
        for (code, n) in &other.codes {
            *self.codes.entry(code.clone()).or_default() += n;
        }
        self.all.add(&other.all);
        self.events += other.events;
        self.joined += other.joined;
        self.text_bytes += other.text_bytes;
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.ends_wrong += other.ends_wrong;
        self.misused += other.misused;
        self.turns += other.turns;
        let room = REMARKS_MAX.saturating_sub(self.remarks.len());
        self.remarks.extend(other.remarks.iter().take(room).cloned());
    }

    fn readings(&self) -> (u64, u64) {
        let ways = || self.ways.values();
        (ways().map(|way| way.readings).sum(), ways().map(|way| way.back).sum())
    }

    /// One line for the end of a run.
    pub(crate) fn line(&self, broken: usize) -> String {
        let (readings, back) = self.readings();
        format!(
            "{} faulted streams in {} worlds, {readings} readings, {back} of them from a cursor: {} whole, {} ended in an error, \
             {} refused, {} left; lost bytes {}, doubled bytes {}, streams with other than one end {}, broken worlds {broken}",
            self.all.streams,
            self.worlds,
            self.all.whole,
            self.all.broke,
            self.all.refused,
            self.all.left,
            self.lost,
            self.doubled,
            self.ends_wrong,
        )
    }

    /// The whole as Markdown, without a title.
    pub(crate) fn markdown(&self, broken: usize) -> String {
        let mut text = format!("{}.\n\n", self.line(broken));
        let _ = writeln!(
            text,
            "{} events were told, {} of them joined; the streams' texts have {} bytes. {} streams were asked for in ways that have to be refused. The logs of conversations had {} turns.\n",
            self.events, self.joined, self.text_bytes, self.misused, self.turns
        );
        let head = "| streams | whole | error | refused | left |\n|---|---|---|---|---|---|\n";
        for (name, rows) in [("fault", &self.faults), ("place", &self.places), ("asked with", &self.classes)] {
            let _ = write!(text, "| {name} {head}");
            for (name, row) in rows {
                let _ = writeln!(text, "| `{name}` | {} |", row.cells());
            }
            text.push('\n');
        }
        text += "| read over | readings | come back | left as planned | cut under them |\n|---|---|---|---|---|\n";
        for (name, way) in &self.ways {
            let _ = writeln!(text, "| {name} | {} | {} | {} | {} |", way.readings, way.back, way.left, way.cut);
        }
        text += "\n| `tidegate-recover` | broke off once, after content | then whole | % | joints | exact | % |\n|---|---|---|---|---|---|---|\n";
        for (name, mended) in &self.mended {
            let share = |n: u64, of: u64| 100.0 * n as f64 / of.max(1) as f64;
            let _ = writeln!(
                text,
                "| {name} | {} | {} | {:.3} | {} | {} | {:.2} |",
                mended.broke_off,
                mended.whole,
                share(mended.whole, mended.broke_off),
                mended.seams,
                mended.exact,
                share(mended.exact, mended.seams),
            );
        }
        let beyond =
            self.mended.iter().flat_map(|(name, mended)| mended.beyond.iter().map(move |(why, n)| (name, why, n)));
        let beyond: Vec<_> = beyond.map(|(name, why, n)| format!("- {name}: {n} {why}")).collect();
        if !beyond.is_empty() {
            let _ = writeln!(text, "\nBesides, not taken up, as is written:\n\n{}", beyond.join("\n"));
        }
        let codes: Vec<_> = self.codes.iter().map(|(code, n)| format!("`{code}` {n}")).collect();
        let _ = writeln!(text, "\nErrors at the end: {}.", codes.join(", "));
        text
    }
}
