//! `tidegate redact`: the gateway's filter for files and pipes.
//!
//! Text goes through a window (`window`), so a file of any size takes a few megabytes; JSON goes value
//! by value (`values`). What is written is the text with its findings replaced; with `--report` or
//! `--check`, where they stand and how many there are, and never a value. A refusal (a kind that is
//! blocked, a part that cannot be looked into, bytes that are no text) ends the command with 2; what was
//! written until then is masked.

mod places;
mod values;
mod window;

use super::{Failed, env, key};
use crate::cli::Redact;
use crate::config::Config;
use places::{Place, Tally};
use std::fs::File;
use std::io::{self, BufWriter, Read, StdoutLock, Write};
use std::path::Path;
use std::process::ExitCode;
use tidegate_redact::detect::Scratch;
use tidegate_redact::kind::{KINDS, Kind};
use tidegate_redact::mask::{Filter, Looked, Refusal, Scopes, Sighting};
use tidegate_redact::rules::{Policy, Rules, Style, Unscannable};
use tidegate_redact::vault::{ENTRIES_MAX, ScopeKey, Vault, VaultError};
use values::{Spaced, Values};
use window::{Piece, Taken, Window};

/// What `--check` ends with if anything is found; 2 is for what could not be done.
const FOUND: u8 = 1;
/// The scope of tokens made here: no conversation has it as its own alone, and none is restored.
const SCOPE: &str = "tidegate redact";

/// Why it does not go on.
enum Stop {
    Failed(Failed),
    /// Nobody reads standard output any more.
    Closed,
}

impl From<Failed> for Stop {
    fn from(failed: Failed) -> Self {
        Stop::Failed(failed)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Stop::Closed,
            _ => Stop::Failed(Failed(format!("standard output cannot be written: {error}"))),
        }
    }
}

/// The rules, and what tokens are made with.
fn rules(flags: &Redact) -> Result<(Rules, Option<ScopeKey>), Failed> {
    let tells = flags.report || flags.check;
    let tokens = !tells && Style::from(flags.style) == Style::Token;
    let (mut rules, mut scope) = (Rules::all(Policy::Mask), None);
    if let Some(path) = &flags.config {
        let mut redact = Config::redaction_in(path, &env, tokens).map_err(Failed::because)?;
        let tenant = flags.tenant.as_deref();
        // Whoever runs this wants it done; a tenant's own policy stays what it is.
        if redact.rules(None).is_off() {
            redact.use_policy(Policy::Mask);
        }
        rules = redact.rules(tenant).clone();
        scope = redact.scope_key();
    }
    if !flags.kinds.is_empty() {
        rules.policies = kinds(&flags.kinds)?;
    }
    if rules.is_off() {
        return Err(Failed("these rules look for nothing: --kinds says what to look for".to_owned()));
    }
    rules.style = if tells { Style::Tag } else { flags.style.into() };
    rules.unscannable = flags.unscannable.map_or(rules.unscannable, Unscannable::from);
    rules.looking.allow.extend(flags.allow.iter().cloned());
    let key = match (tokens, scope) {
        (false, _) => None,
        (true, Some(key)) => Some(ScopeKey::derive(&key, flags.tenant.as_deref().unwrap_or_default(), Some(SCOPE))),
        (true, None) => Some(ScopeKey::derive(&key::random()?, "", Some(SCOPE))),
    };
    Ok((rules, key))
}

/// What `--kinds` asks for.
fn kinds(names: &[String]) -> Result<[Policy; KINDS], Failed> {
    let mut policies = [Policy::Off; KINDS];
    for name in names {
        match Kind::of_name(name) {
            Some(kind) => policies[kind.index()] = Policy::Mask,
            None if name == "all" => policies = [Policy::Mask; KINDS],
            None => {
                let all = Kind::ALL.map(Kind::name).join(", ");
                return Err(Failed(format!("--kinds: there is no kind `{name}`; there are {all}, and `all`")));
            }
        }
    }
    Ok(policies)
}

/// One run of the command.
struct Work<'f> {
    flags: &'f Redact,
    filter: Filter,
    vault: Option<Vault>,
    scratch: Scratch,
    out: BufWriter<StdoutLock<'static>>,
    tally: Tally,
    /// Whether places are told in place of the text.
    tells: bool,
}

pub(super) fn run(flags: &Redact) -> Result<ExitCode, Failed> {
    let (rules, key) = rules(flags)?;
    let mut work = Work {
        flags,
        filter: Filter::new(rules).map_err(Failed::because)?,
        vault: key.map(Vault::new),
        scratch: Scratch::default(),
        out: BufWriter::new(io::stdout().lock()),
        tally: Tally::default(),
        tells: flags.report || flags.check,
    };
    let done = work.all();
    // What is masked is let go before anything is said about the end.
    let flushed = work.out.flush().map_err(Stop::from);
    match done.and(flushed) {
        Ok(()) | Err(Stop::Closed) => {}
        Err(Stop::Failed(failed)) => return Err(failed),
    }
    let is_found = flags.check && work.tally.found() > 0;
    Ok(if is_found { ExitCode::from(FOUND) } else { ExitCode::SUCCESS })
}

impl Work<'_> {
    fn all(&mut self) -> Result<(), Stop> {
        let standard = [Path::new("-").to_path_buf()];
        let files = if self.flags.files.is_empty() { &standard[..] } else { &self.flags.files };
        for path in files {
            if path.as_os_str() == "-" {
                self.input("stdin", io::stdin().lock())?;
            } else {
                let name = path.display().to_string();
                let file = File::open(path).map_err(|e| Failed(format!("{name}: cannot be read: {e}")))?;
                self.input(&name, file)?;
            }
        }
        if self.tells {
            writeln!(self.out, "{}", self.tally)?;
        } else if self.tally.unscannable > 0 {
            // Standard output has the text. If standard error is closed nobody wants to know.
            let _ = writeln!(io::stderr(), "tidegate: not looked into: {}", self.tally.unscannable_told());
        }
        Ok(())
    }

    fn input(&mut self, name: &str, input: impl Read) -> Result<(), Stop> {
        if self.flags.json { self.bodies(name, input) } else { self.text(name, input) }
    }

    /// A text of any length.
    fn text(&mut self, name: &str, input: impl Read) -> Result<(), Stop> {
        let taken = Taken { by_line: self.flags.line_buffered, lossy: self.flags.lossy };
        let mut window = Window::new(input, taken);
        let mut place = Place::default();
        loop {
            let end = match window.next() {
                Ok(Some(piece)) => self.piece(name, &mut place, piece)?,
                Ok(None) => return Ok(()),
                Err(window::Unreadable::Read(e)) => return Err(Failed(format!("{name}: cannot be read: {e}")).into()),
                Err(window::Unreadable::Encoding(at)) => {
                    place.over(window.unwritten(at));
                    return Err(Failed(format!(
                        "{name}:{place}: this is not UTF-8, and what is not text cannot be looked through; convert it first (for example with iconv), or give --lossy"
                    ))
                    .into());
                }
            };
            window.written(end);
            if self.flags.line_buffered {
                self.out.flush()?;
            }
        }
    }

    /// Writes what of a piece is to be decided; up to where it was.
    fn piece(&mut self, name: &str, place: &mut Place, piece: Piece<'_>) -> Result<usize, Stop> {
        let Piece { text, from, to } = piece;
        let scopes = &mut self.vault.as_mut().map(|own| Scopes { own, shared: None });
        let looked = self.filter.look_through_text(text, scopes.as_mut(), &mut self.scratch).map_err(refused(name))?;
        // What ends before it was decided with the piece before, what begins behind it will be.
        let here = |sighting: &&Sighting| sighting.span.end > from && sighting.span.start < to;
        let mut at = from;
        for sighting in looked.sightings.iter().filter(here) {
            let start = sighting.span.start.max(from);
            self.pass(place, &text[at..start])?;
            self.sighting(name, *place, sighting, &text[start..sighting.span.end])?;
            place.over(&text[start..sighting.span.end]);
            at = sighting.span.end;
        }
        let end = to.max(at);
        self.pass(place, &text[at..end])?;
        Ok(end)
    }

    /// Bodies of requests, one after the other.
    fn bodies(&mut self, name: &str, input: impl Read) -> Result<(), Stop> {
        let mut values = Values::new(input);
        let mut place = Place::default();
        loop {
            let wrong = |place: Place, what: String| Stop::from(Failed(format!("{name}:{place}: {what}")));
            let Spaced { space, value } = match values.next() {
                Ok(Some(spaced)) => spaced,
                Ok(None) => return Ok(()),
                Err(values::Unreadable::Read(e)) => return Err(Failed(format!("{name}: cannot be read: {e}")).into()),
                Err(values::Unreadable::TooLong) => {
                    return Err(wrong(place, format!("a value is longer than {} bytes", values::VALUE_BYTES_MAX)));
                }
                Err(values::Unreadable::Broken(space)) => {
                    place.over(values.space(space));
                    return Err(wrong(place, "from here on there is no whole JSON object".to_owned()));
                }
            };
            // White space is ASCII.
            self.pass(&mut place, std::str::from_utf8(space).unwrap_or_default())?;
            let Ok(body) = std::str::from_utf8(value) else {
                return Err(wrong(place, "the value that begins here is not UTF-8".to_owned()));
            };
            if body.is_empty() {
                continue;
            }
            let scopes = &mut self.vault.as_mut().map(|own| Scopes { own, shared: None });
            let looked = self.filter.look_through_request(body, scopes.as_mut(), &mut self.scratch);
            let looked = match looked {
                Err(Refusal::NotJson) => {
                    return Err(wrong(place, "the value that begins here is not JSON, or too deep".to_owned()));
                }
                other => other.map_err(refused(name))?,
            };
            self.body(name, &mut place, body, &looked)?;
        }
    }

    fn body(&mut self, name: &str, place: &mut Place, body: &str, looked: &Looked) -> Result<(), Stop> {
        let rules = self.filter.rules();
        let closed = rules.unscannable == Unscannable::Block && rules.is_strict();
        if looked.unscannable > 0 && closed && !self.tells {
            let many = looked.unscannable;
            let why = format!(
                "{name}:{place}: {many} of its parts are base64, URLs or file ids and cannot be looked into; --unscannable pass lets them through"
            );
            return Err(Failed(why).into());
        }
        self.tally.unscannable += u64::from(looked.unscannable);
        let mut at = 0;
        for sighting in &looked.sightings {
            self.pass(place, &body[at..sighting.span.start])?;
            let raw = &body[sighting.span.clone()];
            self.sighting(name, *place, sighting, raw)?;
            place.over(raw);
            at = sighting.span.end;
        }
        self.pass(place, &body[at..])
    }

    /// Text in which nothing was found.
    fn pass(&mut self, place: &mut Place, text: &str) -> Result<(), Stop> {
        place.over(text);
        if !self.tells {
            self.out.write_all(text.as_bytes())?;
        }
        Ok(())
    }

    /// Something that was found: told, or replaced.
    fn sighting(&mut self, name: &str, place: Place, sighting: &Sighting, raw: &str) -> Result<(), Stop> {
        self.tally.count(sighting.kind);
        // Of the operator's patterns the name says more than that it is one.
        let own = sighting.pattern.and_then(|n| self.filter.rules().looking.patterns.get(usize::from(n)));
        let rule = own.map_or(sighting.rule, |pattern| &pattern.name);
        if self.tells {
            writeln!(self.out, "{name}:{place}: {} ({rule})", sighting.kind)?;
            return Ok(());
        }
        match (sighting.policy, &sighting.instead) {
            (Policy::Block, _) => Err(Failed(format!(
                "{name}:{place}: {} ({rule}) is blocked; nothing is written from here on",
                sighting.kind
            ))
            .into()),
            (_, Some(instead)) => Ok(self.out.write_all(instead.as_bytes())?),
            (_, None) => Ok(self.out.write_all(raw.as_bytes())?),
        }
    }
}

/// Why the filter refuses a text.
fn refused(name: &str) -> impl Fn(Refusal) -> Failed {
    move |refusal| match refusal {
        Refusal::Vault(VaultError::Full) => Failed(format!(
            "{name}: there are more than {ENTRIES_MAX} different values (or 32 MiB of them), more than tokens are kept apart for; --style tag has no such limit"
        )),
        other => Failed(format!("{name}: {other}")),
    }
}
