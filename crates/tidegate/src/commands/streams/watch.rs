//! The table on a terminal, drawn anew each second.
//!
//! It is drawn on the terminal's other screen, as a pager does, so that what stood there before is
//! there again afterwards, however this ends: by Ctrl-C, a signal, an error or a panic;
//! and while it is stopped by Ctrl-Z. The gateway
//! is asked on a thread of its own, so that one that hangs holds up no Ctrl-C; what it said last is
//! not shown for longer than [`FRESH_MAX`].

use super::super::Failed;
use super::super::admin::Admin;
use super::super::grid::{terminal, within};
use super::{Size, page, table};
use crate::cli::Streams;
use rustix::process::{Signal, getpid, kill_process};
use serde_json::Value;
use std::io::Write;
use std::panic;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tidegate_transport::Clock;
use tokio::signal::unix::{SignalKind, signal};

/// Between two drawings.
const DRAW_EVERY: Duration = Duration::from_secs(1);
/// How long a table is shown to which no newer one comes.
const FRESH_MAX: Duration = Duration::from_secs(3);

const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// Draws until it is stopped. A gateway that is not there, or a filter that is wrong, ends it at once.
pub(super) fn run(admin: &Admin, flags: &Streams) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failed::because)?;
    let first = page(admin, flags)?;
    let done = runtime.block_on(draw(admin, flags, first));
    // A question that is under way is not waited for.
    runtime.shutdown_background();
    done
}

async fn draw(admin: &Admin, flags: &Streams, first: Value) -> Result<(), Failed> {
    let on = |kind| signal(kind).map_err(Failed::because);
    let (mut interrupt, mut terminate, mut hang_up) =
        (on(SignalKind::interrupt())?, on(SignalKind::terminate())?, on(SignalKind::hangup())?);
    let mut suspend = on(SignalKind::from_raw(Signal::TSTP.as_raw()))?;
    // From here on each of them is noticed, so that none leaves the terminal as it is.
    let _screen = Screen::enter().map_err(Failed::because)?;
    let clock = Clock::real();
    let mut shown = Some(first);
    loop {
        show(shown.as_ref()).map_err(Failed::because)?;
        let next = clock.now() + DRAW_EVERY;
        let asking = async {
            clock.sleep_until(next).await;
            let (admin, flags) = (admin.clone(), flags.clone());
            let mut asked = tokio::task::spawn_blocking(move || page(&admin, &flags).ok());
            let said = match clock.within(FRESH_MAX, &mut asked).await {
                Some(said) => said,
                None => {
                    show(None).map_err(Failed::because)?;
                    asked.await
                }
            };
            said.map_err(Failed::because)
        };
        tokio::select! {
            biased;
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
            _ = hang_up.recv() => return Ok(()),
            _ = suspend.recv() => {
                leave();
                kill_process(getpid(), Signal::STOP).map_err(Failed::because)?;
                enter().map_err(Failed::because)?;
            }
            said = asking => shown = said?,
        }
    }
}

/// Over what stands there: each line to its end, then everything below, so that nothing flickers.
fn show(page: Option<&Value>) -> std::io::Result<()> {
    let (lines, columns) = terminal();
    let text = match page {
        // The last line stays free: a line end there would scroll.
        Some(page) => table(page, Some(Size { columns, lines: Some(lines.saturating_sub(1)) })),
        None => within("the gateway does not answer; asking again each second", columns).to_owned() + "\n",
    };
    let mut out = std::io::stdout().lock();
    write!(out, "\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\r\n"))?;
    out.flush()
}

/// The terminal's other screen, with no cursor; its first one is back when this is dropped.
struct Screen;

/// Whether the other screen is shown.
static ENTERED: AtomicBool = AtomicBool::new(false);

impl Screen {
    fn enter() -> std::io::Result<Self> {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            // What is said of the panic has to stand on the screen that stays.
            leave();
            before(info);
        }));
        let screen = Screen;
        enter()?;
        Ok(screen)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        leave();
    }
}

fn enter() -> std::io::Result<()> {
    ENTERED.store(true, Ordering::Relaxed);
    let mut out = std::io::stdout().lock();
    out.write_all(ENTER.as_bytes())?;
    out.flush()
}

fn leave() {
    if ENTERED.swap(false, Ordering::Relaxed) {
        // A terminal that is gone needs nothing back.
        let mut out = std::io::stdout();
        let _ = out.write_all(LEAVE.as_bytes()).and_then(|()| out.flush());
    }
}
