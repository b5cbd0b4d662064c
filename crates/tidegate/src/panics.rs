//! What a panic may say: where it happened, never with what.
//!
//! A panic is a bug, and the task it ends is accounted for like any other. But its message is made of
//! what was at hand (`str` slicing prints the text it was given), and texts and credentials do not
//! belong in a log. So a message is shown only where it stands in the program as it is.

use std::any::Any;
use std::io::Write;
use std::panic::{self, PanicHookInfo};

/// Withholds what panics print of their data, in this whole process.
pub(crate) fn withhold() {
    panic::set_hook(Box::new(|info| {
        let told = told(info);
        if tracing::dispatcher::has_been_set() {
            tracing::error!("{told}");
        } else {
            // If standard error is closed there is nobody to tell.
            let _ = writeln!(std::io::stderr(), "tidegate: {told}");
        }
    }));
}

fn told(info: &PanicHookInfo<'_>) -> String {
    let at = info.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    let thread = std::thread::current().name().unwrap_or("without a name").to_owned();
    format!("a bug: panic in thread {thread} at {at}: {}; please report it", message(info.payload()))
}

fn message(payload: &dyn Any) -> &'static str {
    payload.downcast_ref::<&'static str>().copied().unwrap_or("its message may hold data and is not shown")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a panic of `work` would print.
    fn of(work: fn()) -> String {
        let payload = panic::catch_unwind(work).unwrap_err();
        message(&*payload).to_owned()
    }

    #[test]
    fn a_message_is_shown_only_if_the_program_has_it_as_it_is() {
        assert_eq!(of(|| panic!("always the same")), "always the same");
        let of_data = of(|| {
            let text = std::hint::black_box("é 138 0013 8000");
            let _ = &text[1..];
        });
        assert!(!of_data.contains("138") && of_data.contains("not shown"), "{of_data}");
    }
}
