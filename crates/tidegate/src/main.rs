//! The `tidegate` command.

use clap::Parser;
use std::process::ExitCode;

/// Chosen by measurement (`docs/measurements/allocator.md`): a tenth less processor time for a
/// stream than the system's, and what a crowd of streams took goes back when they end.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match tidegate::run(tidegate::cli::Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            // Standard error is the place for it; if even that is closed there is nobody to tell.
            let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("tidegate: {failed}\n"));
            ExitCode::from(2)
        }
    }
}
