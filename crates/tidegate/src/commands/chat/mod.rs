//! `tidegate chat`: a person and a model, over the gateway's conversations.
//!
//! ```text
//!   standard input ─▶ lines ─┬─ message ─▶ turn ──▶ answer, as it comes ──▶ one line about it
//!                            ├─ command ─▶ door ──▶ what was asked for
//!      Ctrl-C ───────────────┴─▶ stops what is under way; at the prompt, twice, leaves
//! ```
//! The chat holds nothing that matters: the gateway keeps the conversation, so leaving is a matter of
//! naming it, and going on a matter of giving the name. From a pipe each line is a turn, and the first
//! that fails ends it: the next would be asked without what it stands on.

mod client;
mod embedded;
mod input;
mod screen;
mod session;
mod show;
mod stream;
mod talk;
mod trouble;
mod window;

pub(super) use client::percent_encoded;
pub(super) use screen::harmless;

use super::{Failed, env};
use crate::cli::Chat;
use client::{Client, Place};
use embedded::Embedded;
use input::{Command, HELP, Lines, Said};
use screen::Screen;
use session::{Interrupts, Session, Terms};
use show::shell_word;
use talk::Ended;
use tidegate_base::Secret;
use tidegate_transport::{Clock, TlsRoots};
use trouble::Trouble;

/// Where `tidegate serve` listens if nobody says otherwise.
const GATEWAY: &str = "http://127.0.0.1:4600";
/// Asked if neither `--model` nor the conversation names one.
const MODEL: &str = "claude-sonnet-5-5";
/// Turns that are shown when a conversation is taken up again, and characters of each message.
const RESUMED_TURNS: u64 = 3;
const RESUMED_CHARS_MAX: usize = 400;

pub(super) fn run(flags: &Chat) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failed::because)?;
    runtime.block_on(start(flags))
}

/// A key and the name of the variable it came from.
type Key = Option<(Secret, &'static str)>;

/// The key for this place, from the environment.
fn key_for(place: &Place, env: &dyn Fn(&str) -> Option<String>) -> Result<Key, Failed> {
    let found = ["TIDEGATE_API_KEY", "ANTHROPIC_API_KEY"].into_iter().find_map(|name| Some((env(name)?, name)));
    let Some((key, name)) = found else { return Ok(None) };
    if key.bytes().any(|b| !(0x21..0x7f).contains(&b)) {
        return Err(Failed(format!(
            "{name} has a space or a character outside ASCII; was it pasted with a line break?"
        )));
    }
    if name == "ANTHROPIC_API_KEY" && place.is_cleartext_elsewhere() {
        return Err(Failed(
            "ANTHROPIC_API_KEY is not sent to another machine in cleartext: use https, or set TIDEGATE_API_KEY to a key of that gateway".to_owned(),
        ));
    }
    Ok(Some((Secret::new(key), name)))
}

async fn start(flags: &Chat) -> Result<(), Failed> {
    let clock = Clock::real();
    let interrupts = Interrupts::of_process()?;
    let embedded = flags.simulate.then(|| Embedded::start(clock, flags.conversations.as_deref())).transpose()?;
    let url = match &embedded {
        Some(embedded) => embedded.url.clone(),
        None => flags.url.clone().unwrap_or_else(|| GATEWAY.to_owned()),
    };
    let place = Place::read(&url)?;
    let key = if embedded.is_some() { None } else { key_for(&place, &env)? };
    let key_from = match &key {
        _ if embedded.is_some() => String::new(),
        Some((_, name)) => format!(", key from {name}"),
        None => ", without a key (TIDEGATE_API_KEY is not set)".to_owned(),
    };
    let roots = flags.ca.clone().map_or(TlsRoots::Machine, TlsRoots::File);
    // Without client keys a gateway takes any, but it takes one.
    let key = key.map_or_else(|| Secret::new("none"), |(key, _)| key);
    let terms = Terms {
        model: flags.model.clone().unwrap_or_else(|| MODEL.to_owned()),
        system: flags.system.clone(),
        max_tokens: flags.max_tokens,
    };
    let mut session = Session {
        client: Client::new(place, Some(key), &roots, clock)?,
        screen: Screen::of_process(),
        interrupts,
        conversation: flags.conversation.clone().unwrap_or_default(),
        turns: 0,
        terms,
        last: None,
    };
    let ended = chat(&mut session, flags, &format!("{url}{key_from}")).await;
    if let Some(embedded) = embedded {
        embedded.stop().await;
    }
    ended
}

async fn chat(session: &mut Session, flags: &Chat, whereto: &str) -> Result<(), Failed> {
    take_up(session, flags, whereto).await.map_err(|trouble| Failed(format!("{trouble}; {}", trouble.advice())))?;
    let ended = match &flags.once {
        Some(text) => match session.turn(text).await {
            Ended::Whole => Ok(()),
            Ended::Stopped | Ended::Left => Err(Failed("stopped".to_owned())),
            Ended::Failed => Err(Failed("the turn failed".to_owned())),
        },
        None => converse(session, &mut Lines::of_process()?).await,
    };
    if session.turns > 0 {
        session.screen.note(&resume_with(session, flags));
    }
    ended
}

/// Finds the conversation, or a name for a new one, and says where the chat stands.
async fn take_up(session: &mut Session, flags: &Chat, whereto: &str) -> Result<(), Trouble> {
    let turns = match flags.conversation {
        Some(_) => session.last_turns(RESUMED_TURNS).await?,
        None => {
            session.take_new_name().await?;
            Vec::new()
        }
    };
    if flags.model.is_none()
        && let Some(model) = turns.iter().rev().find_map(|turn| turn["model"].as_str())
    {
        session.terms.model = model.to_owned();
    }
    let stands = if session.turns == 0 { "new".to_owned() } else { show::turns(session.turns) };
    session.screen.note(&format!("{} ({stands}), {}, at {whereto}", session.conversation, session.terms.model));
    session.show(&turns, RESUMED_CHARS_MAX);
    if session.screen.has_person && flags.once.is_none() {
        session.screen.note("/help lists the commands; Ctrl-C stops an answer; Ctrl-D leaves");
    }
    Ok(())
}

/// What a step of the chat left it in.
enum Step {
    On,
    /// A Ctrl-C was the last thing said: the next one leaves.
    Interrupted,
    Leave,
    /// A turn, or a command, did not do what it was asked to.
    Failed,
}

/// Takes lines until the end.
async fn converse(session: &mut Session, lines: &mut Lines) -> Result<(), Failed> {
    let mut was_interrupted = false;
    let mut prompt = "> ";
    loop {
        session.screen.prompt(prompt);
        prompt = "> ";
        let said = tokio::select! {
            biased;
            () = session.interrupts.next() => None,
            said = lines.next() => Some(said),
        };
        if matches!(said, None | Some(None)) {
            session.screen.line_is_open();
        }
        let step = match said {
            None if was_interrupted || session.interrupts.is_over => Step::Leave,
            None => {
                lines.forget();
                session.screen.note("Ctrl-C once more leaves, and so does Ctrl-D");
                Step::Interrupted
            }
            Some(None) => Step::Leave,
            Some(Some(Said::GoesOn)) => {
                prompt = ". ";
                Step::On
            }
            Some(Some(Said::Nothing)) => Step::On,
            Some(Some(Said::Wrong(why))) => {
                session.screen.warn(&why);
                Step::Failed
            }
            Some(Some(Said::Message(text))) => say(session, &text).await,
            Some(Some(Said::Command(command))) => obey(session, lines, command).await,
        };
        was_interrupted = matches!(step, Step::Interrupted);
        match step {
            Step::On | Step::Interrupted => {}
            Step::Leave => return Ok(()),
            Step::Failed if session.screen.has_person => {}
            Step::Failed => return Err(Failed("the rest of the input was not sent".to_owned())),
        }
    }
}

async fn say(session: &mut Session, text: &str) -> Step {
    match session.turn(text).await {
        Ended::Whole => Step::On,
        Ended::Stopped if !session.interrupts.is_over => Step::Interrupted,
        Ended::Stopped | Ended::Left => Step::Leave,
        Ended::Failed => Step::Failed,
    }
}

async fn obey(session: &mut Session, lines: &mut Lines, command: Command) -> Step {
    let done = match command {
        Command::Turns(count) => session.show_turns(count).await,
        Command::Window => session.show_window().await,
        Command::Fork(id) => session.fork(id).await,
        Command::Delete => {
            if !is_sure(session, lines).await {
                session.screen.note("nothing was deleted");
                return Step::On;
            }
            session.delete().await
        }
        Command::Again => match session.last.clone() {
            Some(text) => return say(session, &text).await,
            None => {
                session.screen.warn("nothing was sent yet");
                return Step::Failed;
            }
        },
        Command::Help => {
            session.screen.note(HELP);
            Ok(())
        }
        Command::Quit => return Step::Leave,
    };
    match done {
        Ok(()) => Step::On,
        Err(Trouble::Stopped) => Step::Interrupted,
        Err(trouble) => {
            session.screen.warn(&trouble.to_string());
            session.screen.note(&trouble.advice());
            Step::Failed
        }
    }
}

/// Asks before something that cannot be taken back.
async fn is_sure(session: &mut Session, lines: &mut Lines) -> bool {
    let question =
        format!("{} and its {} will be gone for good. Type yes: ", session.conversation, show::turns(session.turns));
    session.screen.prompt(&question);
    tokio::select! {
        biased;
        () = session.interrupts.next() => false,
        line = lines.line() => matches!(line, Some(Ok(line)) if line.trim() == "yes"),
    }
}

/// The command that goes on from here.
fn resume_with(session: &Session, flags: &Chat) -> String {
    if flags.simulate && flags.conversations.is_none() {
        return "this conversation goes with its gateway; --conversations FILE keeps it".to_owned();
    }
    let program = std::env::args().next().unwrap_or_else(|| "tidegate".to_owned());
    let mut words = vec![program, "chat".to_owned()];
    let kept = flags.conversations.iter();
    let kept =
        kept.flat_map(|file| ["--simulate".to_owned(), "--conversations".to_owned(), file.display().to_string()]);
    words.extend(kept);
    words.extend(flags.url.iter().flat_map(|url| ["--url".to_owned(), url.clone()]));
    words.extend(["--conversation".to_owned(), session.conversation.clone()]);
    // The model is that of the last turn, which the conversation knows.
    words.extend(session.terms.system.iter().flat_map(|system| ["--system".to_owned(), system.clone()]));
    words.extend(flags.ca.iter().flat_map(|ca| ["--ca".to_owned(), ca.display().to_string()]));
    let words: Vec<String> = words.iter().map(|word| shell_word(word)).collect();
    format!("go on with: {}", words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, set: &[(&str, &str)]) -> Result<Key, String> {
        let env = |name: &str| set.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        key_for(&Place::read(url).unwrap(), &env).map_err(|e| e.to_string())
    }

    #[test]
    fn the_gateways_key_goes_before_the_apis() {
        let both = [("ANTHROPIC_API_KEY", "sk-ant-x"), ("TIDEGATE_API_KEY", "tg_x")];
        let is = |key: &str, from| Ok(Some((Secret::new(key), from)));
        assert_eq!(check("http://127.0.0.1:1", &both), is("tg_x", "TIDEGATE_API_KEY"));
        assert_eq!(check("http://127.0.0.1:1", &both[..1]), is("sk-ant-x", "ANTHROPIC_API_KEY"));
        assert_eq!(check("http://127.0.0.1:1", &[]), Ok(None));
        assert_eq!(check("http://gate.example", &both), is("tg_x", "TIDEGATE_API_KEY"));
    }

    #[test]
    fn no_key_of_the_api_goes_over_a_network_in_cleartext_and_none_is_told() {
        let why = check("http://gate.example", &[("ANTHROPIC_API_KEY", "sk-ant-x")]).unwrap_err();
        assert!(why.contains("cleartext") && !why.contains("sk-ant-x"), "{why}");
        let why = check("https://gate.example", &[("TIDEGATE_API_KEY", "tg_x\nhost: y")]).unwrap_err();
        assert!(why.contains("TIDEGATE_API_KEY") && !why.contains("tg_x"), "{why}");
    }
}
