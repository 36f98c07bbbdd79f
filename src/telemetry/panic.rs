//! What is said of a panic: where, never what. A panic's message may hold what the code was looking at.

/// From now on a panic is one line that names its place in the source.
pub fn hide_panic_messages() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
        if tracing::dispatcher::has_been_set() {
            tracing::error!(place, "a bug stopped one task; please report this line");
        } else {
            use std::io::Write;
            // Nobody is left to tell when stderr is closed.
            let _ = writeln!(std::io::stderr(), "a bug stopped the program at {place}; please report this line");
        }
    }));
}
