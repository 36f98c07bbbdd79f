//! Which commands there are.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use super::accounts::Accounts;
use super::approvals::Approvals;
use super::audit::Audit;
use super::backups::{Backup, Backups, Restore};
use super::bindings::Bindings;
use super::carriers::Carriers;
use super::codes::Codes;
use super::drill::Drill;
use super::failure::Exit;
use super::keys::Keys;
use super::log::Log;
use super::logs::Logs;
use super::policy::{Policy, Retention};
use super::posture::Stand;
use super::reload::Reload;
use super::rotation::Rotation;
use super::sessions::Sessions;
use super::stats::Stats;
use super::status::Look;
use super::subject::Subject;
use super::top::Top;
use crate::{dev, gateway};

/// Does what the command line says, and says how it went: 0 done, 1 refused, 2 usage or configuration, 3 not reachable.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    match CommandLine::try_parse_from(arguments) {
        Ok(CommandLine { command }) => command.run(),
        Err(asked) => {
            // Whoever closed the stream does not want to read it.
            let _ = asked.print();
            if asked.use_stderr() { Exit::Usage.into() } else { Exit::Done.into() }
        }
    }
}

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 refused (the reason is on stderr), 2 usage or configuration, 3 no gateway answers.

Commands that administer talk to a running gateway: at its socket, named by --socket, --config or
SEKISHO_SOCKET, or over TLS at its admin listener, named by --admin-url with --cert, --key and --ca. A newcomer starts with `sekisho dev`.";

const SIGNALS: &str = "\
Logs go to stdout as JSON lines, one each event; SEKISHO_LOG chooses the level, such as `warn` or
`sekisho::upstream=debug`. SIGTERM and Ctrl-C let open requests finish, for 30 seconds at most. SIGHUP brings the
configuration into force that stands in the file then, as `sekisho reload` does.";

const CHECK: &str = "\
Looks at the configuration, certificates, the key-encryption key, ports, the admin socket and the store, and changes
nothing. Each finding is a line `file:line: key: problem` on stderr; warnings do not keep a gateway from starting.
Exit codes: 0 it would start, 2 it would not.";

const RELOAD: &str = "\
Reads the file again, and the certificates, keys and lists that it names. Open requests go on, sessions stay. If anything
is not sound nothing changes, and each finding is a line `file:line: key: problem` on stderr. SIGHUP does the same.
Exit codes: 0 it is in force, 1 refused, 2 the configuration is not sound or needs a restart, 3 no gateway answers.";

/// Signs handsets in by their carrier's identifier, in front of an admin console.
#[derive(Parser)]
#[command(name = "sekisho", version, after_help = EXIT_CODES)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Try it: the gateway, a sample console and simulated carriers, all on this machine
    Dev {
        /// Where its files are kept between runs
        #[arg(long, value_name = "DIR", default_value = "./sekisho-dev")]
        dir: PathBuf,
    },
    /// Run the gateway
    #[command(after_help = SIGNALS)]
    Serve {
        /// The configuration
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Find what start-up would find wrong, all at once
    #[command(after_help = CHECK)]
    Check {
        /// The configuration
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// How a running gateway does: readiness, listeners, rates, store, keys, upstreams
    Status(Look),
    /// The same again and again, on a terminal
    Top(Top),
    /// Bring the configuration into force that stands in the running gateway's file now
    #[command(after_help = RELOAD)]
    Reload(Reload),
    /// Carrier profiles, and what they make of real traffic
    Carriers(Carriers),
    /// Accounts of a running gateway
    Accounts(Accounts),
    /// Enrolment codes, each binds one handset to an account
    Codes(Codes),
    /// What takes more than one person, and waits for them
    Approvals(Approvals),
    /// Handsets bound to accounts
    Bindings(Bindings),
    /// Replacing the binding keys while handsets sign in
    Rotation(Rotation),
    /// Sessions of handsets that are signed in
    Sessions(Sessions),
    /// Who did what, in a trail that shows what was changed in it
    Audit(Audit),
    /// The keys of a running gateway
    Keys(Keys),
    /// What would be if a key had leaked, found out on a copy
    Drill(Drill),
    /// What a person may ask for: their data, its erasure, a stop
    Subject(Subject),
    /// How many signed in, per day and carrier; nobody is counted by themselves
    Stats(Stats),
    /// What is kept, what for and for how long
    Policy(Policy),
    /// How the promises of the privacy policy stand: 1 while one is overdue or broken
    Posture(Stand),
    /// Erasing what is old enough
    Retention(Retention),
    /// What the system log of a running gateway tells
    Log(Log),
    /// What a sealed access log says, as long as the key of its day lives
    Logs(Logs),
    /// Take a backup of a running gateway: an encrypted file
    Backup(Backup),
    /// Backups that were taken
    Backups(Backups),
    /// Put a backup in the place of the store, while no gateway runs
    Restore(Restore),
}

impl Command {
    fn run(self) -> ExitCode {
        match self {
            Self::Dev { dir } => dev::run(&dir),
            Self::Serve { config } => gateway::serve(&config),
            Self::Check { config } => gateway::check(&config),
            Self::Status(look) => look.run(),
            Self::Top(top) => top.run(),
            Self::Reload(reload) => reload.run(),
            Self::Carriers(carriers) => carriers.run(),
            Self::Accounts(accounts) => accounts.run(),
            Self::Codes(codes) => codes.run(),
            Self::Approvals(approvals) => approvals.run(),
            Self::Bindings(bindings) => bindings.run(),
            Self::Rotation(rotation) => rotation.run(),
            Self::Sessions(sessions) => sessions.run(),
            Self::Audit(audit) => audit.run(),
            Self::Keys(keys) => keys.run(),
            Self::Drill(drill) => drill.run(),
            Self::Subject(subject) => subject.run(),
            Self::Stats(stats) => stats.run(),
            Self::Policy(policy) => policy.run(),
            Self::Posture(stand) => stand.run(),
            Self::Retention(retention) => retention.run(),
            Self::Log(log) => log.run(),
            Self::Logs(logs) => logs.run(),
            Self::Backup(backup) => backup.run(),
            Self::Backups(backups) => backups.run(),
            Self::Restore(restore) => restore.run(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_commands_are_sound() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn commands_of_the_contract_parse() {
        for line in [
            "dev",
            "dev --dir d",
            "serve --config f",
            "check --config f",
            "status --json",
            "status --config f",
            "top --socket s --every 5",
            "reload --socket s --json",
            "reload --config f",
            "log level",
            "log level debug --socket s",
            "log level warn,sekisho::upstream=debug --json",
            "log level --reset",
            "carriers list",
            "carriers list --config f --json",
            "carriers explain --config f --fingerprint-key 00",
            "carriers user-agent",
            "logs read --config f",
            "logs read --day 2026-11-26 file",
            "logs read --from 2026-11-25 --to 2026-11-26 --json - --socket s",
            "accounts list --socket s --json",
            "accounts --json show alice",
            "accounts suspend alice",
            "accounts resume alice --config f",
            "accounts list --admin-url https://gw:8444 --cert c --key k --ca a --json",
            "codes issue alice --json",
            "bindings list",
            "bindings list --account alice",
            "bindings revoke id",
            "bindings import --json",
            "bindings stats --by chain",
            "rotation start --purpose binding --reason yearly --paused",
            "rotation start --purpose binding --drain-within 30 --expected-loss 4 --json",
            "rotation list",
            "rotation status r1 --follow",
            "rotation pause r1",
            "rotation resume r1",
            "rotation abort r1",
            "rotation rescan r1",
            "sessions list --account alice",
            "sessions revoke id",
            "rotation receipt r1 --json",
            "rotation verify file --json --audit-key a --audit-key b --store s",
            "sessions revoke --account alice",
            "drill compromise",
            "drill compromise k1 --json",
            "keys compromise k1 --reason stolen --no-wait",
            "approvals list --json",
            "approvals approve p1",
            "approvals deny p1 --json",
            "audit tail",
            "audit tail --follow -n 5 --json",
            "audit export --from 7",
            "audit verify --socket s",
            "audit verify file --json",
            "audit verify - --head 0000000000000000000000000000000000000000000000000000000000000000 --expect-entries 3",
            "audit verify file --audit-key -rQRxHtQSpXMCXHVoNCEMlh7qsYhlUdMyfGmXHdVuqA",
            "audit pseudonym alice",
            "policy show --json",
            "policy diff old.json --json",
            "retention run --dry-run",
            "retention report --json",
            "stats",
            "stats --from 2026-11-01 --to 2026-11-24 --json",
            "subject export alice --lang ja --json",
            "subject erase alice",
            "subject correct alice --binding id --label work",
            "subject correct alice --binding id --no-label",
            "subject stop alice",
            "subject resume alice",
            "subject hold alice --reason court",
            "subject release alice",
            "subject erasures --json",
            "subject verify file --audit-key a",
            "backup file --socket s --json",
            "backups list --json",
            "backups destroy 00 --reason old",
            "restore file --config f",
            "restore file --config f --replace --json",
        ] {
            let arguments = ["sekisho"].into_iter().chain(line.split(' '));
            assert!(CommandLine::try_parse_from(arguments).is_ok(), "{line}");
        }
    }

    #[test]
    fn others_do_not() {
        for line in [
            "",
            "serve",
            "carriers explain",
            "codes issue",
            "bindings revoke",
            "rotation start",
            "rotation status",
            "sessions revoke",
            "sessions revoke id --account alice",
            "approvals approve",
            "log",
            "log level info --reset",
            "logs",
            "logs read --day 2026-11-31 file",
            "logs read --day 2026-11-26 --from 2026-11-25 file",
            "top --every 0",
            "accounts show alice bob",
            "accounts list --socket s --admin-url https://gw",
            "audit export --from 0",
            "stats --from 2026-11-31",
            "stats --to yesterday",
            "subject hold alice",
            "subject correct alice --binding id",
            "subject correct alice --binding id --label a --no-label",
            "subject export alice --lang fr",
            "backup",
            "backups destroy",
            "restore file",
            "restore --config f",
            "audit tail -n 1001",
            "audit verify file --audit-key short",
            "audit verify --head 0000000000000000000000000000000000000000000000000000000000000000",
        ] {
            let arguments = ["sekisho"].into_iter().chain(line.split(' ').filter(|word| !word.is_empty()));
            assert!(CommandLine::try_parse_from(arguments).is_err_and(|error| error.use_stderr()), "{line}");
        }
    }
}
