//! The two ways in: a file, and a text for tests and fuzzing.

use std::iter;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::check::{self, Checked};
use super::document::{join, line_at};
use super::finding::{Finding, Report, Severity};
use super::secret_source::open_to_others;
use super::types::{CarrierSpecs, Config, GatewayConfig, KekSource, ListenerConfig, Serves, TransportSetting};
use crate::carrier::{Carriers, OverTls, Profile};

impl Config {
    /// Reads and checks a configuration file. Beside it, only the permissions of secret files and `/etc/group` are looked at.
    ///
    /// # Errors
    /// All findings at once, warnings included, if there is at least one error. With a good configuration come its
    /// warnings.
    pub fn load(path: &Path) -> Result<(Self, Vec<Finding>), Vec<Finding>> {
        let text = read(path)?;
        let (config, mut findings) = Self::parse(&text, path)?;
        findings.extend(config.secrets_open_to_others());
        findings.sort_by_key(|finding| finding.line);
        Ok((config, findings))
    }

    /// Checks a configuration text as if it stood in the file `path`, which is not opened.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn parse(text: &str, path: &Path) -> Result<(Self, Vec<Finding>), Vec<Finding>> {
        let Checked { config, specs, mut report, .. } = check::check(text, path);
        // The profiles are judged even where something else is wrong already: all findings at once.
        let carriers = judge(&specs, &mut report);
        if let (Some(config), Some(carriers)) = (&config, &carriers)
            && config.gateway.public_url.https
        {
            // A proxy in front may say that a request came in the clear.
            let has_plain = !config.gateway.trusted_proxies.is_empty()
                || config.listeners.iter().any(|l| l.serves == Serves::Handset && l.tls.is_none());
            let lost: Vec<String> = carriers.profiles().iter().filter_map(|profile| without_tls12(profile)).collect();
            if !lost.is_empty() {
                report.warning(
                    "gateway.public_url",
                    format_args!(
                        "is https, which browsers that cannot speak TLS 1.2 cannot open; they get a page that says so: {}; \
                         serving them needs an http public_url inside a private network, or behind what ends older TLS",
                        lost.join(", ")
                    ),
                );
            }
            let refusing = |p: &&Arc<Profile>| p.enabled() && p.over_tls() == OverTls::Refuse;
            for profile in carriers.profiles().iter().filter(refusing).filter(|_| !has_plain) {
                report.warning(
                    &profile_key(profile.name().as_str(), "over_tls"),
                    "its identifier is refused over TLS and public_url is https, but nothing listens in the clear where it could \
                     be read, so its handsets cannot sign in; add a [[listener]] that serves \"handset\" without tls, seen from outside at gateway.plain_url",
                );
            }
        }
        if let (Some(config), Some(carriers)) = (&config, &carriers) {
            sessions_lost(config, carriers, &mut report);
            for profile in carriers.profiles().iter().filter(|profile| profile.enabled()) {
                let both = |network| Some((network, config.gateway.trusted_proxies.overlapping(network)?));
                for (network, proxies) in profile.networks().iter().filter_map(both) {
                    report.warning(
                        &profile_key(profile.name().as_str(), "networks"),
                        format_args!(
                            "{network} and {proxies} of gateway.trusted_proxies overlap: an address that is a proxy's is no \
                             handset's, so nobody signs in from where both are"
                        ),
                    );
                }
            }
            let asked = config.listeners.iter().position(|listener| listener.serves == Serves::ForwardAuth);
            if let Some(index) = asked.filter(|_| config.session.transport != TransportSetting::Cookie) {
                report.warning(
                    &format!("listener[{index}].serves"),
                    "no session in links passes by a forward-auth listener, because nobody would keep its token from the \
                     upstream; write session.transport = \"cookie\" unless handset listeners serve the console too",
                );
            }
        }
        match (config, carriers) {
            (Some(config), Some(carriers)) if !report.has_errors() => {
                Ok((config.with_carriers(carriers), report.into_findings()))
            }
            _ => Err(report.into_findings()),
        }
    }

    /// `admin.socket` of a configuration file, whatever else is wrong in it: a running gateway is administered, and told to
    /// reload, while its file is being edited.
    ///
    /// # Errors
    /// As [`Self::load`], for a file from which the socket cannot be told.
    pub fn admin_socket(path: &Path) -> Result<PathBuf, Vec<Finding>> {
        check::check(&read(path)?, path)
            .socket
            .map_or_else(|| Self::load(path).map(|(config, _)| config.admin.socket), Ok)
    }

    /// Secret files that others than the gateway's user may read or write.
    fn secrets_open_to_others(&self) -> Vec<Finding> {
        let keks = [("keys.kek", Some(&self.keys.kek)), ("keys.kek_next", self.keys.kek_next.as_ref())];
        let keks = keks.into_iter().filter_map(|(key, kek)| kek?.doubt(key));
        let with_tls = |(i, listener): (usize, &ListenerConfig)| Some((i, listener.tls.clone()?));
        let pairs = self.listeners.iter().enumerate().filter_map(with_tls).flat_map(|(i, tls)| {
            let place = move |j| format!("listener[{i}].tls.additional[{j}].key");
            let additional = tls.additional.into_iter().enumerate().map(move |(j, pair)| (place(j), pair));
            iter::once((format!("listener[{i}].tls.key"), tls.first)).chain(additional)
        });
        let certificates = pairs.filter_map(|(place, pair)| open_to_others(&pair.key).map(|problem| (place, problem)));
        let headers = self.trace.iter().flat_map(|trace| &trace.headers);
        let headers = headers.filter_map(|(name, secret)| Some((format!("trace.headers.{name}"), secret.doubt()?)));
        let warning =
            |(key, problem): (String, String)| Finding { severity: Severity::Warning, ..self.finding(&key, problem) };
        keks.chain(certificates).chain(headers).map(warning).collect()
    }

    /// The KEK to change to, as the file names it now: what the next start will read.
    ///
    /// # Errors
    /// The findings for which the file cannot be used any more.
    pub fn next_kek_now(&self) -> Result<Option<KekSource>, Vec<Finding>> {
        Config::load(&self.file).map(|(config, _)| config.keys.kek_next)
    }

    /// Something about `key` that came up after the text was checked, such as a busy port.
    #[must_use]
    pub fn finding(&self, key: &str, problem: String) -> Finding {
        let (file, line) = (self.file.clone(), self.lines.of(key));
        // One finding, one line, whatever a library's message holds.
        let problem = if problem.contains(char::is_control) { problem.replace(char::is_control, " ") } else { problem };
        Finding { file, line, key: key.to_owned(), severity: Severity::Error, problem }
    }
}

/// What `session.transport` means for browsers that cannot do as it says.
fn sessions_lost(config: &Config<CarrierSpecs>, carriers: &Carriers, report: &mut Report) {
    let enabled = || carriers.profiles().iter().filter(|profile| profile.enabled());
    match config.session.transport {
        TransportSetting::Auto => {}
        TransportSetting::Cookie => {
            let lost: Vec<String> = enabled()
                .flat_map(|profile| profile.cookieless().map(|browser| format!("{} {browser}", profile.name())))
                .collect();
            if !lost.is_empty() {
                let lost = lost.join(", ");
                report.warning(
                    "session.transport",
                    format_args!(
                        "browsers that keep no cookies cannot stay signed in: {lost}; \"auto\" serves them by URLs"
                    ),
                );
            }
        }
        TransportSetting::Url => {
            let refusing = enabled().any(|profile| profile.over_tls() == OverTls::Refuse);
            if config.gateway.public_url.https && refusing && !config.session.url_over_tls {
                report.warning(
                    "session.transport",
                    "public_url is https, where sessions of carriers whose over_tls is \"refuse\" are kept in cookies all the same; \
                     see url_over_tls",
                );
            }
        }
    }
}

impl<C> Config<C> {
    fn with_carriers<D>(self, carriers: D) -> Config<D> {
        Config {
            carriers,
            file: self.file,
            sha256: self.sha256,
            lines: self.lines,
            gateway: self.gateway,
            listeners: self.listeners,
            admin: self.admin,
            upstreams: self.upstreams,
            routes: self.routes,
            session: self.session,
            binding: self.binding,
            store: self.store,
            backup: self.backup,
            limits: self.limits,
            keys: self.keys,
            notice: self.notice,
            log: self.log,
            privacy: self.privacy,
            trace: self.trace,
        }
    }
}

/// The browsers of an enabled profile that cannot open an https URL of ours, e.g. `docomo (1.0, mova)`.
fn without_tls12(profile: &Profile) -> Option<String> {
    let generations = profile.generations_without_tls12();
    (profile.enabled() && !generations.is_empty()).then(|| format!("{} ({})", profile.name(), generations.join(", ")))
}

/// The parts that the offline tools do without. What is neither theirs nor one of these is a slip of the pen.
const OTHER_PARTS: [&str; 14] = [
    "listener", "admin", "upstream", "route", "session", "binding", "store", "backup", "limits", "keys", "notice",
    "log", "privacy", "trace",
];

/// What the offline tools need of a configuration: who is believed, and which profiles there are.
pub struct Identification {
    /// `[gateway]`.
    pub gateway: GatewayConfig,
    /// `[carriers.*]`.
    pub carriers: Carriers,
}

impl Identification {
    /// Reads these two parts of a configuration file; the others may be missing or wrong.
    ///
    /// # Errors
    /// All findings about these parts. With good ones come their warnings.
    pub fn load(path: &Path) -> Result<(Self, Vec<Finding>), Vec<Finding>> {
        let Checked { gateway, specs, mut report, .. } = check::check(&read(path)?, path);
        let carriers = judge(&specs, &mut report);
        let part = |finding: &Finding| finding.key.split(['.', '[']).next().unwrap_or_default().to_owned();
        let findings: Vec<Finding> =
            report.into_findings().into_iter().filter(|finding| !OTHER_PARTS.contains(&&*part(finding))).collect();
        let sound = findings.iter().all(|finding| finding.severity == Severity::Warning);
        match (gateway, carriers) {
            (Some(gateway), Some(carriers)) if sound => Ok((Self { gateway, carriers }, findings)),
            _ => Err(findings),
        }
    }
}

fn read(path: &Path) -> Result<String, Vec<Finding>> {
    let alone = |line, problem: String| {
        let (file, key) = (path.to_owned(), "(file)".to_owned());
        vec![Finding { file, line, key, severity: Severity::Error, problem }]
    };
    let bytes = std::fs::read(path).map_err(|error| alone(1, format!("cannot be read: {error}")))?;
    String::from_utf8(bytes).map_err(|error| {
        let line = line_at(&String::from_utf8_lossy(error.as_bytes()), error.utf8_error().valid_up_to());
        alone(line, "is not UTF-8 from here on".to_owned())
    })
}

/// Builds the profiles; what is wrong or doubtful about them goes into the report.
fn judge(specs: &CarrierSpecs, report: &mut Report) -> Option<Carriers> {
    match Carriers::build(specs) {
        Ok((carriers, doubts)) => {
            for doubt in doubts {
                report.warning(&profile_key(&doubt.profile, &doubt.key), doubt.problem);
            }
            Some(carriers)
        }
        Err(problems) => {
            for problem in problems {
                report.error(&profile_key(&problem.profile, &problem.key), problem.problem);
            }
            None
        }
    }
}

fn profile_key(profile: &str, key: &str) -> String {
    let table = join("carriers", profile);
    if key.is_empty() { table } else { format!("{table}.{key}") }
}
