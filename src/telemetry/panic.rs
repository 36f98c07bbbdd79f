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

#[cfg(test)]
mod tests {
    use std::process::Command;

    const CANARY: &str = "2cXoloo-of-a-handset";

    #[test]
    #[ignore = "the hook is the whole process's: the other test runs it in one of its own"]
    #[should_panic(expected = "while it looked at")]
    fn a_panic() {
        super::hide_panic_messages();
        panic!("while it looked at {CANARY}");
    }

    #[test]
    fn a_panic_tells_where_and_never_what() {
        let program = std::env::current_exe().unwrap();
        let test = ["telemetry::panic::tests::a_panic", "--exact", "--ignored", "--nocapture"];
        let run = Command::new(program).args(test).output().unwrap();
        let told = String::from_utf8([run.stdout, run.stderr].concat()).unwrap();
        assert!(told.contains("1 passed") && told.contains("src/telemetry/panic.rs:"), "{told}");
        assert!(!told.contains(CANARY) && !told.contains("looked"), "{told}");
    }
}
