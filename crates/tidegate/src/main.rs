//! The `tidegate` command.

use clap::Parser;
use std::process::ExitCode;

/// Chosen by measurement (`docs/measurements/allocator.md`): what a crowd of streams took goes back
/// when they end. Without huge pages, which alone were half of an idle gateway's memory.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match tidegate::run(tidegate::cli::Cli::parse()) {
        Ok(code) => code,
        Err(failed) => {
            // Standard error is the place for it; if even that is closed there is nobody to tell.
            let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("tidegate: {failed}\n"));
            ExitCode::from(2)
        }
    }
}
