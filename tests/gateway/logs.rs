//! What the gateways of this process log, kept to be searched. All tests share it: look for names of your own.

use std::fmt::{Debug, Write as _};
use std::sync::{Mutex, Once};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

static LINES: Mutex<String> = Mutex::new(String::new());

/// Begins to capture, at the finest level that the gateway's own code has.
pub(crate) fn capture() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        tracing::subscriber::set_global_default(tracing_subscriber::registry().with(Capture)).unwrap();
    });
}

/// Everything so far.
pub(crate) fn captured() -> String {
    LINES.lock().unwrap().clone()
}

/// The security events about `account`, each as `key=value` pairs.
pub(crate) fn security_events_of(account: &str) -> Vec<String> {
    let about = format!(" account={account:?} ");
    captured().lines().filter(|l| l.starts_with("security ") && l.contains(&about)).map(str::to_owned).collect()
}

struct Capture;

impl<S: Subscriber> Layer<S> for Capture {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let target = event.metadata().target();
        let ours = target == "security" || target.split("::").next() == Some("sekisho");
        if ours || *event.metadata().level() <= Level::WARN {
            let mut line = Line(format!("{target} "));
            event.record(&mut line);
            let mut lines = LINES.lock().unwrap();
            lines.push_str(&line.0.replace('\n', " "));
            lines.push('\n');
        }
    }
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, "{}={value:?} ", field.name()).unwrap();
    }
}
