//! `sekisho dev`: starts everything, says what to click, and ends it all at Ctrl-C.

use std::io::IsTerminal as _;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::carrier::CarrierGateways;
use super::console::{self, GatewayKeys, LastTold, Login};
use super::folder::{DevFolder, FolderError};
use super::ports::{self, GatewayPorts};
use super::serve::serve;
use super::simulator::{self, Simulator, issue_code};
use crate::admin::{AdminClient, ClientError, IssuedCode};
use crate::assertion::install_crypto_provider;
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, Finding};
use crate::edge::Inherited;
use crate::entropy::{Entropy, SystemEntropy};
use crate::gateway::Running;
use crate::telemetry::{self, Metrics};

/// Whose handsets the simulated ones are to be.
const ACCOUNT: &str = "demo";
/// Whom the gateway's assertions are for.
const AUDIENCE: &str = "https://console.internal";
/// How long open requests may take to end.
const DRAIN: Duration = Duration::from_secs(2);

/// Why it does not run.
#[derive(Debug, Error)]
enum DevError {
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error("the system gave no port, thread or signal: {0}")]
    System(#[from] std::io::Error),
    #[error("{}", lines(.0))]
    Gateway(Vec<Finding>),
    #[error("the gateway runs, but issues no code: {0}")]
    Code(#[from] ClientError),
}

/// Runs everything from `dir` until Ctrl-C or SIGTERM.
#[must_use]
pub fn run(dir: &Path) -> ExitCode {
    install_crypto_provider();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let _log = telemetry::init_for_people(Arc::clone(&clock));
    // The gateway has threads of its own; this one serves the console, the simulator and the admin socket.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = runtime.map_err(DevError::from).and_then(|runtime| runtime.block_on(everything(dir, clock)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

async fn everything(dir: &Path, clock: Arc<dyn Clock>) -> Result<(), DevError> {
    let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy::default());
    // Listened for before anything starts, so that no signal finds us half way.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;

    let folder = DevFolder::open(dir, &*entropy, clock.now())?;
    let password = folder.console_password()?;
    let gateway = GatewayPorts::choose()?;
    let (console_listener, console_address) = listen(9000)?;
    let (page_listener, page_address) = listen(8000)?;
    let file = folder.write_configuration(gateway, console_address, AUDIENCE)?;
    let config = Config::load(&file).map_err(DevError::Gateway)?.0;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let metrics = Arc::new(Metrics::new());
    let running =
        Running::start(config, Arc::clone(&clock), Arc::clone(&entropy), metrics, cores, Inherited::default())
            .await
            .map_err(DevError::Gateway)?;

    let shutdown = CancellationToken::new();
    let told = LastTold::default();
    let keys = Arc::new(GatewayKeys::new(gateway.plain, AUDIENCE));
    let login = Login {
        account: ACCOUNT.to_owned(),
        password: password.clone(),
        origin: format!("http://{}", gateway.plain),
        entropy,
        last: told.clone(),
    };
    let console = console::router(keys, clock, told.clone(), login);
    tokio::spawn(serve(console_listener, console, shutdown.clone()));
    let simulator = Simulator {
        address: page_address,
        gateway: gateway.plain,
        carriers: CarrierGateways::new(gateway.plain, folder.handset_seed()?),
        admin: AdminClient::new(&folder.socket()),
        account: ACCOUNT.to_owned(),
        password: password.clone(),
        told,
    };
    tokio::spawn(serve(page_listener, simulator::router(simulator), shutdown.clone()));

    match issue_code(&AdminClient::new(&folder.socket()), ACCOUNT).await {
        Ok(code) => {
            let (page, console) = (page_address, console_address);
            welcome(&Welcome { page, gateway, console, code: &code, password: &password, folder: &folder });
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            println!("\n  Ending ...");
            shutdown.cancel();
            running.stop(DRAIN).await;
            Ok(())
        }
        Err(error) => {
            running.stop(DRAIN).await;
            Err(error.into())
        }
    }
}

fn listen(wanted: u16) -> Result<(tokio::net::TcpListener, SocketAddr), DevError> {
    let listener: TcpListener = ports::bind(wanted)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok((tokio::net::TcpListener::from_std(listener)?, address))
}

fn lines(findings: &[Finding]) -> String {
    findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

struct Welcome<'a> {
    page: SocketAddr,
    gateway: GatewayPorts,
    console: SocketAddr,
    code: &'a IssuedCode,
    password: &'a str,
    folder: &'a DevFolder,
}

/// What a newcomer reads.
fn welcome(w: &Welcome<'_>) {
    let terminal = std::io::stdout().is_terminal();
    let bold = |text: &str| if terminal { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() };
    let row = |name: &str, value: &str, note: &str| println!("  {name:<18}{value:<32}{note}");
    println!("\n  {}  the checkpoint, with everything around it, on this machine only\n", bold("Sekisho"));
    row("Open this page", &bold(&format!("http://{}/", w.page)), "three handsets to hold");
    row("Gateway", &format!("http://{}/", w.gateway.plain), "handsets only: a browser has no carrier");
    row("  over TLS", &format!("https://localhost:{}/", w.gateway.tls.port()), "trust certs/ca.pem to look at it");
    row("  health", &format!("http://{}/readyz", w.gateway.ops), "and /metrics");
    row("Sample console", &format!("http://{}/", w.console), "refuses whoever does not come through");
    println!();
    row("Account", ACCOUNT, "");
    let until = w.code.expires_at.get(11..16).unwrap_or_default();
    row("Enrolment code", &bold(&w.code.code), &format!("for one handset, until {until} UTC"));
    row("Console password", &bold(w.password), "the other way in: the console's own login, /login");
    println!("\n  1  Open the page and choose a handset: docomo, au or SoftBank.");
    println!("  2  On its screen press [1], \"sign in\". Only now its identifier is read.");
    println!("  3  Type the code. The handset is bound to the account, and the console opens.");
    println!("  4  Press [5] there: it shows all that it was told.");
    println!("  5  Press [6]: that page asks for a PIN. Set one, and it opens; its assertion says so.");
    println!(
        "  6  Take the next handset: make a new code on the page, or type the password into the console's own login."
    );
    let root = w.folder.root().display();
    println!("\n  Everything is in {root} (gateway.toml explains each setting).");
    let program = std::env::args_os().next().map_or_else(|| "sekisho".into(), PathBuf::from);
    println!("  Try: {} bindings list --socket {}", program.display(), w.folder.socket().display());
    println!("  {} ends it all.\n", bold("Ctrl-C"));
}
