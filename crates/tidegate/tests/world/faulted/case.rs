//! A stream with its witnesses, and how it is counted.
//!
//! The book of what all its readers were told, what the API recorded of its attempts, and what the
//! same API says to the same body in a good mood.

use crate::world::checks::told_by;
use crate::world::faulted::asker::{Line, Read};
use crate::world::faulted::book::Ending;
use crate::world::faulted::fault::Harm;
use crate::world::faulted::plan::{Ask, Class, Door, Plan, Recover};
use crate::world::faulted::stage::{Bill, Over};
use crate::world::faulted::tally::{Row, Tally};
use crate::world::faulted::visit::{Came, locked};
use crate::world::story::{Story, Told};
use std::fmt::Write as _;
use std::sync::Arc;
use tidegate_base::Moment;
use tidegate_simulator::{Action, Progress, Record, Reply, RequestFacts, Simulator};

/// What became of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Whole,
    /// It ended in an error, of this code.
    Broke(String),
    /// It never began; status and code.
    Refused(u16, String),
    /// Nobody knows.
    Left,
}

/// A stream with its witnesses.
pub(crate) struct Case<'a> {
    pub(crate) plan: &'a Plan,
    /// What the API noted of every request of this world.
    pub(crate) all: &'a [Record],
    pub(crate) ask: &'a Ask,
    pub(crate) line: &'a Line,
    pub(crate) reads: Vec<Read>,
    pub(crate) story: Story,
    pub(crate) truth: Arc<Reply>,
    /// The API's records of its attempts, oldest first.
    pub(crate) records: Vec<&'a Record>,
    pub(crate) bills: Vec<&'a Bill>,
    pub(crate) fate: Fate,
}

/// What the API composes for this body when nothing goes wrong.
fn true_reply(judge: &mut Simulator, ask: &Ask) -> Option<Arc<Reply>> {
    let body = ask.body.to_string();
    let headers = [("x-api-key", "sk-ant-judge-1"), ("anthropic-version", "2023-06-01")];
    let facts = RequestFacts { method: "POST", target: "/v1/messages", headers: &headers, body: body.as_bytes() };
    let exchange = judge.begin(Moment::ZERO, &facts);
    judge.ended(Moment::ZERO, exchange.ordinal, Progress::default());
    debug_assert!(exchange.playback.take(1).all(|step| !matches!(step.action, Action::Close)), "a good mood");
    judge.truth().records().next_back()?.reply.clone()
}

impl<'a> Case<'a> {
    pub(crate) fn new(
        over: &'a Over<'a>,
        ask: &'a Ask,
        line: &'a Line,
        judge: &mut Simulator,
    ) -> Result<Case<'a>, String> {
        let book = locked(&line.book);
        let story = match book.read() {
            // Blocks whose borders changed places make no message, and nobody can tell what it was.
            Err(_) if ask.faults.iter().any(|fault| fault.kind == "swap-at") => Story::default(),
            read => read?,
        };
        let truth = true_reply(judge, ask).ok_or("the API says nothing to it")?;
        let echo = ask.simulate.is_none();
        let of_it = |record: &&Record| match echo {
            true => record.model == ask.model,
            false => record.reply.as_ref().is_some_and(|reply| reply.id == truth.id),
        };
        let records: Vec<_> = over.records.iter().filter(of_it).collect();
        let bills = over.bills.iter().filter(|bill| echo && bill.model == ask.model).collect();
        let reads = locked(&line.reads).clone();
        let fate = fate(&book.ending, &reads);
        drop(book);
        Ok(Case { plan: over.plan, all: &over.records, ask, line, reads, story, truth, records, bills, fate })
    }

    pub(crate) fn count(&self, tally: &mut Tally) {
        let book = locked(&self.line.book);
        tally.events += book.told;
        tally.joined += book.joined;
        drop(book);
        tally.text_bytes += self.story.blocks.iter().map(|block| block.text.len() as u64).sum::<u64>();
        tally.misused += u64::from(self.ask.misused);
        let class = if self.ask.class == Class::Memory { "memory" } else { "off" };
        let class = format!("resume {class}, recover {}", self.ask.recover.word());
        let places = self.ask.faults.iter().filter_map(|fault| fault.place.as_ref()).map(|place| kind_of_place(place));
        let add = |row: &mut Row| {
            row.streams += 1;
            match &self.fate {
                Fate::Whole => row.whole += 1,
                Fate::Broke(code) if code == "stream_cancelled" => row.left += 1,
                Fate::Broke(_) => row.broke += 1,
                Fate::Refused(..) => row.refused += 1,
                Fate::Left => row.left += 1,
            }
        };
        for fault in &self.ask.faults {
            add(tally.faults.entry(fault.kind.clone()).or_default());
        }
        for place in places {
            add(tally.places.entry(place).or_default());
        }
        add(tally.classes.entry(class).or_default());
        add(&mut tally.all);
        if let Fate::Broke(code) | Fate::Refused(_, code) = &self.fate {
            *tally.codes.entry(code.clone()).or_default() += 1;
        }
        for read in &self.reads {
            let way = tally.ways.entry(way_of(read.door)).or_default();
            way.readings += 1;
            way.back += u64::from(read.after.is_some());
            way.left += u64::from(read.came == Came::Left);
            way.cut += u64::from(matches!(read.came, Came::Cut(_)));
        }
        self.count_mended(tally);
    }

    /// What became of it, if it broke off once, after content, and somebody was to mend it.
    fn count_mended(&self, tally: &mut Tally) {
        let name = match self.ask.recover {
            Recover::Never => return,
            Recover::Restart => "restart",
            Recover::Continue if self.plan.clumsy => "continue, with spaces and begun words that were not there",
            Recover::Continue => "continue",
        };
        let [fault] = &self.ask.faults[..] else { return };
        let struck = self.records.first().is_some_and(|r| r.progress.faults > 0 && r.progress.content_bytes > 0);
        let told =
            matches!(self.fate, Fate::Whole) || matches!(&self.fate, Fate::Broke(code) if code != "stream_cancelled");
        if fault.harm != Harm::Breaks || self.ask.struck != 1 || !struck || !told || self.story.content_bytes() == 0 {
            return;
        }
        let mended = tally.mended.entry(name).or_default();
        if self.fate != Fate::Whole
            && let Some(why) = self.beyond()
        {
            *mended.beyond.entry(why.to_owned()).or_default() += 1;
            return;
        }
        // One that a neighbour on its connection took along later was struck twice.
        if self.records[1..]
            .iter()
            .any(|r| r.reply.as_ref().is_some_and(|reply| r.progress.content_bytes < reply.content_bytes()))
        {
            return;
        }
        mended.broke_off += 1;
        mended.whole += u64::from(self.fate == Fate::Whole);
        if self.fate != Fate::Whole {
            tally.remarks.push(format!("{name}, not whole: seed {}\n{}", self.plan.seed, self.describe()));
        } else if self.is_continued() {
            mended.seams += 1;
            mended.exact += u64::from(self.says_the_truth());
            if !self.says_the_truth() {
                let text = |blocks: &[Told]| {
                    blocks.iter().filter(|b| b.kind == "text").map(|b| b.text.as_str()).collect::<String>()
                };
                let truth: Vec<Told> = self.truth.blocks.iter().map(told_by).collect();
                let how = self.records.iter().find_map(|r| r.continuation.as_ref()).map(|c| {
                    format!(
                        "preamble {:?} reopened {:?} space {:?} repeated {:?}",
                        c.preamble, c.reopened, c.space, c.repeated
                    )
                });
                let why = differ(&text(&self.story.blocks), &text(&truth));
                tally.remarks.push(format!(
                    "{name}, inexact: seed {} {why}; {how:?}\n{}",
                    self.plan.seed,
                    self.describe()
                ));
            }
        }
    }

    /// Why the recovery table says that this one cannot be taken up.
    fn beyond(&self) -> Option<&'static str> {
        (self.ask.faults[0].kind == "huge-at, too large").then_some("with an event that is too large")
    }

    pub(crate) fn is_continued(&self) -> bool {
        self.ask.recover == Recover::Continue && !locked(&self.line.book).recovered.is_empty()
    }

    /// Two replies may have made it.
    pub(crate) fn is_mended(&self) -> bool {
        self.ask.recover != Recover::Never && !locked(&self.line.book).recovered.is_empty()
    }

    pub(crate) fn is_disordered(&self) -> bool {
        self.ask.faults.iter().any(|fault| fault.harm == Harm::Disorder)
    }

    /// Whether its text, thinking and calls are the true ones.
    fn says_the_truth(&self) -> bool {
        let of = |kind: &str, blocks: &[Told]| -> Vec<String> {
            blocks.iter().filter(|b| b.kind == kind).map(|b| format!("{}{}", b.name, b.text)).collect()
        };
        let truth: Vec<Told> = self.truth.blocks.iter().map(told_by).collect();
        let told = &self.story.blocks;
        let (text, true_text) = (of("text", told).concat(), of("text", &truth).concat());
        let at_max = self.truth.stop_reason == "max_tokens" || self.story.stop_reason.as_deref() == Some("max_tokens");
        let texts = text == true_text || at_max && (true_text.starts_with(&text) || text.starts_with(&true_text));
        texts && (at_max || of("tool_use", told) == of("tool_use", &truth))
    }

    /// Other attempts that a fault struck as this one's last ended. Over HTTP/2 and WebSockets they may
    /// have shared a connection.
    pub(crate) fn struck_beside(&self) -> impl Iterator<Item = &'a Record> {
        let (ended, model) = (self.records.last().and_then(|r| r.ended), &self.ask.model);
        let at_once = move |r: &&Record| ended.is_some() && r.ended == ended && r.progress.faults > 0;
        self.all.iter().filter(at_once).filter(move |r| r.model != *model)
    }

    pub(crate) fn describe(&self) -> String {
        let ask = self.ask;
        let mut text = format!(
            "  stream {} {:?} {:?} model {} faults {:?} at {} attempts, over {:?}; {:?}\n  visits {:?}\n  twin {:?} deleted {:?}\n",
            ask.number,
            ask.class,
            ask.recover,
            ask.model,
            ask.faults.iter().map(|f| f.text.as_str()).collect::<Vec<_>>(),
            ask.struck,
            self.plan.spoken,
            self.fate,
            ask.visits,
            ask.twin,
            ask.deleted,
        );
        for read in &self.reads {
            let came: String = format!("{:?}", read.came).chars().take(300).collect();
            let _ = writeln!(
                text,
                "  read {:?} from {:?}, {} to {}: {came}",
                read.door, read.after, read.began, read.ended
            );
        }
        for r in &self.records {
            let _ = writeln!(
                text,
                "  attempt {} status {} refusal {:?} faults {:?} struck {} began {} left {:?} ended {:?} content {} continues {}",
                r.ordinal,
                r.status,
                r.refusal,
                r.faults,
                r.progress.faults,
                r.began,
                r.left,
                r.ended,
                r.progress.content_bytes,
                r.continuation.is_some(),
            );
        }
        for r in self.struck_beside() {
            let _ = writeln!(text, "  beside it {} {:?} at {:?}", r.ordinal, r.faults, r.ended);
        }
        let book = locked(&self.line.book);
        let _ = writeln!(
            text,
            "  last {}, recovered {:?}, bills {:?}, error {:?}",
            book.last(),
            book.recovered,
            self.bills,
            book.error
        );
        text
    }
}

fn kind_of_place(place: &str) -> String {
    match place.as_bytes() {
        [b'0'..=b'9', ..] => "a byte".to_owned(),
        _ if place.starts_with("event-") => "an event".to_owned(),
        _ => place.to_owned(),
    }
}

fn way_of(door: Door) -> &'static str {
    match door {
        Door::Http1 => "HTTP/1.1",
        Door::Http2 => "HTTP/2",
        Door::Socket(_) => "WebSocket",
    }
}

fn fate(ending: &Option<Ending>, reads: &[Read]) -> Fate {
    let refused = reads.iter().find_map(|read| match &read.came {
        Came::Refused(status, body) if *status != 410 => {
            let error = &body["error"];
            let code = error["details"]["error_code"].as_str().or(error["type"].as_str()).unwrap_or_default();
            Some(Fate::Refused(*status, code.to_owned()))
        }
        _ => None,
    });
    match ending {
        Some(Ending::Stop) => Fate::Whole,
        Some(Ending::Error(code)) => Fate::Broke(code.clone()),
        None => refused.unwrap_or(Fate::Left),
    }
}

/// How two texts differ, in few words.
pub(crate) fn differ(got: &str, want: &str) -> String {
    let at = got.bytes().zip(want.bytes()).take_while(|(a, b)| a == b).count();
    let around = |text: &str| {
        String::from_utf8_lossy(&text.as_bytes()[at.saturating_sub(20).min(text.len())..(at + 40).min(text.len())])
            .into_owned()
    };
    format!("{} bytes, truly {}; at {at} {:?}, truly {:?}", got.len(), want.len(), around(got), around(want))
}
