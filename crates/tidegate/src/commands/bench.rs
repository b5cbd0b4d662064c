//! `tidegate bench URL`, and the way to `bench --scenario`, `bench peers` and `bench soak`: flags to a
//! plan, a report to the terminal.

use super::{Failed, say};
use crate::cli::{Bench, BenchCommand, BenchMode};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tidegate_base::Secret;
use tidegate_bench::{Arrival, Mode, Plan, ProgressView};
use tidegate_transport::TlsRoots;

fn plan(flags: &Bench) -> Result<Plan, Failed> {
    let mut plan = Plan::new(flags.url.as_deref().unwrap_or_default());
    plan.mode = match flags.mode {
        BenchMode::Json => Mode::Json,
        BenchMode::Sse => Mode::Sse,
        BenchMode::Websocket => Mode::Socket,
    };
    plan.concurrency = flags.concurrency;
    plan.rate_per_s = flags.rate;
    plan.arrival = if flags.even { Arrival::Even } else { Arrival::Poisson };
    plan.duration = flags.duration.map(|span| span.0);
    plan.requests = flags.requests;
    plan.key = flags.key.clone().map(Secret::new);
    plan.model.clone_from(&flags.model);
    plan.prompt_bytes = flags.prompt.as_usize();
    plan.max_tokens = flags.max_tokens;
    plan.keep_alive = !flags.no_keep_alive;
    plan.seed = flags.seed;
    plan.threads = flags.threads;
    plan.request_timeout = flags.timeout.map_or(plan.request_timeout, |span| span.0);
    plan.stamps = flags.stamps;
    plan.tls_roots = flags.ca.clone().map_or(TlsRoots::Machine, TlsRoots::File);
    for line in &flags.headers {
        let (name, value) =
            line.split_once(':').ok_or_else(|| Failed(format!("--header `{line}`: write `name: value`")))?;
        plan.headers.push((name.trim().to_owned(), value.trim().to_owned()));
    }
    Ok(plan)
}

/// Set by the first Ctrl-C: the report of what was measured so far is still printed.
fn stop_on_interrupt() -> Result<Arc<AtomicBool>, Failed> {
    let stop = Arc::new(AtomicBool::new(false));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failed::because)?;
    let told = Arc::clone(&stop);
    std::thread::Builder::new()
        .name("interrupt".into())
        .spawn(move || {
            runtime.block_on(async {
                if super::signals::asked_to_stop().await.is_ok() {
                    told.store(true, Ordering::Relaxed);
                }
                std::future::pending::<()>().await;
            })
        })
        .map_err(Failed::because)?;
    Ok(stop)
}

pub(super) fn run(flags: &Bench) -> Result<(), Failed> {
    match &flags.command {
        Some(BenchCommand::Peers(flags)) => return super::peers::run(flags),
        Some(BenchCommand::Soak(flags)) => return super::soak::run(flags),
        Some(BenchCommand::Compare(flags)) => return super::compare::run(flags),
        Some(BenchCommand::Scenarios(flags)) => return super::scenarios::run(flags),
        Some(BenchCommand::Storm(flags)) => return super::storm::run(flags),
        Some(BenchCommand::Sockets(flags)) => return super::sockets::run(flags),
        Some(BenchCommand::Resume(flags)) => return super::resume::run(flags),
        Some(BenchCommand::Conversations(flags)) => return super::conversations::run(flags),
        None => {}
    }
    if let Some(scenario) = &flags.scenario {
        return super::quota::run(flags, scenario);
    }
    // clap does not ask for what is missing where that would contradict the URL.
    let stray = [
        ("--times", flags.times.is_some()),
        ("--legs", !flags.legs.is_empty()),
        ("--markdown", flags.markdown.is_some()),
    ];
    if let Some((flag, _)) = stray.iter().find(|(_, given)| *given) {
        return Err(Failed(format!("{flag} goes with --scenario, and not with a URL")));
    }
    let plan = plan(flags)?;
    let stop = stop_on_interrupt()?;
    let mut view = ProgressView::on_stderr();
    let report = tidegate_bench::run(&plan, |progress| {
        view.show(progress);
        if stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    view.finish();
    let report = report.map_err(Failed::because)?;
    if flags.json {
        say(format_args!("{:#}", report.json()));
    } else {
        say(report.table().trim_end());
    }
    if report.ok == 0 {
        return Err(Failed("not one request was answered well; the errors are in the report".to_owned()));
    }
    Ok(())
}
