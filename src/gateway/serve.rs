//! The process: `serve` runs a gateway until it is told to stop, `check` tells what would keep it from starting.

use std::path::Path;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::startup::{self, Running, at_log_file};
use super::{descriptors, watchdog};
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, Finding, Severity};
use crate::edge::Inherited;
use crate::entropy::SystemEntropy;
use crate::telemetry::{self, Actor, Metrics};

/// How long open requests may take once the gateway was told to stop.
const DRAIN: Duration = Duration::from_secs(30);

/// How long a service manager is asked to wait at a time.
const PATIENCE: Duration = Duration::from_secs(30);

const USAGE: u8 = 2;

/// `sekisho serve --config FILE`.
#[must_use]
pub fn serve(config: &Path) -> ExitCode {
    // Before any thread is there, as it changes the environment.
    let inherited = Inherited::from_env();
    let config = match Config::load(config) {
        Ok((config, warnings)) => {
            print(&warnings);
            config
        }
        Err(findings) => {
            print(&findings);
            return ExitCode::from(USAGE);
        }
    };
    let inherited = match inherited {
        Ok(inherited) => inherited,
        Err(error) => {
            print(&[config.finding("listener", error.to_string())]);
            return ExitCode::from(USAGE);
        }
    };
    let clock = Arc::new(SystemClock::default());
    let metrics = Arc::new(Metrics::new());
    let _flushed_on_drop = match telemetry::init(Arc::clone(&clock) as Arc<dyn Clock>, &metrics, config.log.level) {
        Ok(guard) => guard,
        Err(error) => {
            print(&[config.finding("log", error.to_string())]);
            return ExitCode::from(USAGE);
        }
    };
    match telemetry::open_security_log(&config.log, &metrics) {
        Ok(redirection) => redirection.take_effect(),
        Err(error) => {
            print(&[config.finding("log.security", at_log_file(&error))]);
            return ExitCode::from(USAGE);
        }
    }
    forbid_core_dumps();
    descriptors::allow_all();
    run(async {
        let signals = match Signals::receive() {
            Ok(signals) => signals,
            Err(error) => {
                print_line(&format!("signals cannot be received: {error}"));
                return ExitCode::FAILURE;
            }
        };
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        match Running::start(config, clock, Arc::new(SystemEntropy::default()), metrics, cores, inherited).await {
            Ok(running) => until_told_to_stop(running, signals).await,
            Err(findings) => {
                print(&findings);
                ExitCode::from(USAGE)
            }
        }
    })
}

/// `sekisho check --config FILE`: all findings at once on stderr; 0 if nothing would keep a gateway from starting.
#[must_use]
pub fn check(config: &Path) -> ExitCode {
    match Config::load(config) {
        Ok((config, warnings)) => {
            print(&warnings);
            run(async {
                let findings = startup::inspect(&config, SystemClock::default().now(), &SystemEntropy::default()).await;
                print(&findings);
                if findings.iter().all(|finding| finding.severity == Severity::Warning) {
                    ExitCode::SUCCESS
                } else {
                    ExitCode::from(USAGE)
                }
            })
        }
        Err(findings) => {
            print(&findings);
            ExitCode::from(USAGE)
        }
    }
}

/// A core dump would hold keys, tokens and the identifier of whoever signs in at that moment.
fn forbid_core_dumps() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) =
        setrlimit(Resource::Core, none).and_then(|()| set_dumpable_behavior(DumpableBehavior::NotDumpable))
    {
        tracing::warn!(%error, "core dumps cannot be switched off");
    }
}

async fn until_told_to_stop(running: Running, mut signals: Signals) -> ExitCode {
    for listener in running.listeners() {
        let scheme = if listener.tls { "https" } else { "http" };
        tracing::info!(address = %listener.address, scheme, serves = listener.serves.as_str(), "listening");
    }
    {
        let mut told = pin!(async {
            await_ready(&running).await;
            // Without a supervisor there is nobody to notify.
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
            let Some(period) = sd_notify::watchdog_enabled() else { return std::future::pending().await };
            let alive = || drop(sd_notify::notify(&[sd_notify::NotifyState::Watchdog]));
            watchdog::watch(period, async |patience| running.silent(patience).await, alive).await;
        });
        loop {
            tokio::select! {
                () = &mut told => {}
                signal = signals.next() => match signal {
                    Told::Stop => break,
                    // Its outcome is in the log and the metrics; signals are heard meanwhile.
                    Told::Reload => drop(tokio::spawn(running.process().reload(Actor::Signal))),
                }
            }
        }
    }
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    tracing::info!("draining");
    tokio::select! {
        () = running.stop(DRAIN) => ExitCode::SUCCESS,
        // Told twice: what is open ends now. Everything that was acknowledged is in the store.
        () = signals.stop() => ExitCode::FAILURE,
    }
}

/// Waits until handsets are served. A service manager is asked for its patience meanwhile, where a restored store takes
/// longer than a start may: that is for operators to end, not for it.
async fn await_ready(running: &Running) {
    let mut ready = pin!(running.ready());
    let mut rounds = tokio::time::interval(PATIENCE / 3);
    let mut told = false;
    loop {
        tokio::select! {
            biased;
            () = &mut ready => break,
            _ = rounds.tick() => {}
        }
        if let Some(waits_for) = running.catching_up() {
            told = true;
            let patience = u32::try_from(PATIENCE.as_micros()).unwrap_or(u32::MAX);
            let state =
                [sd_notify::NotifyState::ExtendTimeoutUsec(patience), sd_notify::NotifyState::Status(&waits_for)];
            let _ = sd_notify::notify(&state);
        }
    }
    if told {
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Status("")]);
    }
}

/// The signals of the process; received from before the first connection on.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn receive() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// What the process is told next.
    async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::Stop,
            _ = self.interrupt.recv() => Told::Stop,
            _ = self.hangup.recv() => Told::Reload,
        }
    }

    /// Resolves when the process is told to stop.
    async fn stop(&mut self) {
        while self.next().await != Told::Stop {}
    }
}

/// What a signal says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    Stop,
    /// The configuration, or a file that it names, is another.
    Reload,
}

fn run(work: impl Future<Output = ExitCode>) -> ExitCode {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(work),
        Err(error) => {
            print_line(&format!("the runtime cannot start: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// What keeps the gateway from starting comes last.
fn print(findings: &[Finding]) {
    for severity in [Severity::Warning, Severity::Error] {
        for finding in findings.iter().filter(|finding| finding.severity == severity) {
            print_line(&finding.to_string());
        }
    }
}

fn print_line(line: &str) {
    use std::io::Write;
    // Nobody is left to tell when stderr is closed.
    let _ = writeln!(std::io::stderr(), "{line}");
}
