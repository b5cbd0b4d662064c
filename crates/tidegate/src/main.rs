//! The `tidegate` command.

use clap::Parser;
use std::process::ExitCode;

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
