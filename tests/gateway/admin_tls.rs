//! The admin API over TLS: who is let in, as whom, and what each role may do.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
};
use rustls::HandshakeKind;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use sekisho::admin::{AdminClient, AdminUrl, ClientError};
use sekisho::clock::{Clock as _, SystemClock};
use sekisho::config::{ClientCertificate, Serves};
use sekisho::tls::VerifyingClient;
use serde_json::Value;
use tempfile::TempDir;
use time::OffsetDateTime;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use crate::harness::Harness;
use crate::logs;
use crate::wire::{connect, pem, soon};

const HOST: &str = "localhost";

/// An authority, and what it has issued.
pub(crate) struct Authority {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

/// A certificate of an administrator, in memory and as files.
pub(crate) struct Certificate {
    der: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    pub(crate) pem_file: PathBuf,
    pub(crate) key_file: PathBuf,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "administrators");
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pair = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&pair).unwrap().der().clone();
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("ca.pem"), pem("CERTIFICATE", &certificate)).unwrap();
        Self { folder, issuer: Issuer::new(params, pair), certificate }
    }

    pub(crate) fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn issue_with(&self, name: &str, edit: impl FnOnce(&mut CertificateParams)) -> Certificate {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        edit(&mut params);
        let pair = KeyPair::generate().unwrap();
        let der = params.signed_by(&pair, &self.issuer).unwrap().der().clone();
        let file = |extension: &str| self.file(&format!("{}.{extension}", name.replace(' ', "-")));
        let (pem_file, key_file) = (file("pem"), file("key"));
        std::fs::write(&pem_file, pem("CERTIFICATE", &der)).unwrap();
        std::fs::write(&key_file, pem("PRIVATE KEY", &pair.serialize_der())).unwrap();
        let key = PrivateKeyDer::try_from(pair.serialize_der()).unwrap();
        Certificate { der, key, pem_file, key_file }
    }

    pub(crate) fn issue(&self, name: &str) -> Certificate {
        self.issue_with(name, |_| ())
    }

    /// A list that revokes these serial numbers.
    fn revoke(&self, serials: &[u64]) -> PathBuf {
        let now = wall_clock();
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: now - time::Duration::days(1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: now - time::Duration::days(1),
            next_update: now + time::Duration::days(30),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let file = self.file("crl.pem");
        std::fs::write(&file, pem("X509 CRL", list.signed_by(&self.issuer).unwrap().der())).unwrap();
        file
    }

    /// Added to a configuration: an admin listener whose own certificate and whose clients are of this authority.
    pub(crate) fn listening(&self, config: &str, roles: &str, more: &str) -> String {
        let server = self.issue_with(HOST, |params| {
            params.subject_alt_names = vec![SanType::DnsName(HOST.try_into().unwrap())];
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        });
        std::fs::set_permissions(&server.key_file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let file = |path: &Path| format!("{:?}", path.display().to_string());
        format!(
            "{config}
[[listener]]
serves = \"admin\"
address = \"127.0.0.1:0\"
tls = {{ certificate = {}, key = {}, client_ca = {}{more} }}
[admin.roles]
{roles}
",
            file(&server.pem_file),
            file(&server.key_file),
            file(&self.ca_file()),
        )
    }

    /// A client that shows `certificate`, or none.
    pub(crate) fn client(&self, certificate: Option<&Certificate>) -> Arc<rustls::ClientConfig> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        Arc::new(match certificate {
            Some(shown) => builder.with_client_auth_cert(vec![shown.der.clone()], shown.key.clone_key()).unwrap(),
            None => builder.with_no_client_auth(),
        })
    }
}

/// TLS judges certificates by the system's clock.
fn wall_clock() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(SystemClock::default().now().unix_seconds()).unwrap()
}

fn admin_address(harness: &Harness) -> SocketAddr {
    harness.running.listeners().iter().find(|l| l.serves == Serves::Admin).unwrap().address
}

/// One call; `None` if the gateway ends the connection instead of answering.
pub(crate) async fn call(
    harness: &Harness,
    client: &Arc<rustls::ClientConfig>,
    method: &str,
    path: &str,
    fields: &[(&str, &str)],
) -> Option<(u16, Value)> {
    call_with(harness, client, method, path, fields, "").await
}

/// As [`call`], with a JSON document.
pub(crate) async fn call_with(
    harness: &Harness,
    client: &Arc<rustls::ClientConfig>,
    method: &str,
    path: &str,
    fields: &[(&str, &str)],
    document: &'static str,
) -> Option<(u16, Value)> {
    let tcp = connect([127, 0, 0, 1].into(), admin_address(harness)).await;
    let name = ServerName::try_from(HOST).unwrap();
    let stream = soon(TlsConnector::from(Arc::clone(client)).connect(name, tcp)).await.ok()?;
    // No session resumes where certificates are asked for: each is judged anew.
    assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
    let mut request = Request::builder().method(method).uri(path).header("Host", HOST);
    if !document.is_empty() {
        request = request.header("Content-Type", "application/json");
    }
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let _driver = AbortOnDropHandle::new(tokio::spawn(connection));
    // With TLS 1.3 the server's no comes when the client believes that all is well.
    let answer = soon(sender.send_request(request.body(Full::<Bytes>::from(document)).unwrap())).await.ok()?;
    let status = answer.status().as_u16();
    let is_file = answer.headers().get("content-type").is_some_and(|kind| kind == "application/octet-stream");
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    if is_file {
        return Some((status, Value::Null));
    }
    // Of JSON lines the last one says how it ended.
    let last = body.trim_ascii().rsplit(|byte| *byte == b'\n').next().unwrap();
    Some((status, serde_json::from_slice(last).unwrap()))
}

/// A connection that stays open between calls.
pub(crate) struct OpenAdmin {
    sender: hyper::client::conn::http1::SendRequest<Full<Bytes>>,
    driver: AbortOnDropHandle<hyper::Result<()>>,
}

impl OpenAdmin {
    pub(crate) async fn connect(harness: &Harness, client: &Arc<rustls::ClientConfig>) -> Self {
        let tcp = connect([127, 0, 0, 1].into(), admin_address(harness)).await;
        let name = ServerName::try_from(HOST).unwrap();
        let stream = soon(TlsConnector::from(Arc::clone(client)).connect(name, tcp)).await.unwrap();
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        Self { sender, driver: AbortOnDropHandle::new(tokio::spawn(connection)) }
    }

    /// The status of a request on it; `None` once it has ended.
    pub(crate) async fn ask(&mut self, path: &str) -> Option<u16> {
        let request = Request::get(path).header("Host", HOST).body(Full::default()).unwrap();
        let answer = soon(self.sender.send_request(request)).await.ok()?;
        let status = answer.status().as_u16();
        answer.into_body().collect().await.unwrap();
        Some(status)
    }

    /// Resolves when the gateway has ended it.
    pub(crate) async fn ended(self) {
        // How it ended is the same here.
        let _ = self.driver.await.unwrap();
    }
}

async fn reason(harness: &Harness, client: &Arc<rustls::ClientConfig>, fields: &[(&str, &str)]) -> String {
    let (status, document) = call(harness, client, "GET", "/v1/accounts", fields).await.unwrap();
    if status == 200 { "200".to_owned() } else { document["error"]["reason"].as_str().unwrap().to_owned() }
}

#[tokio::test]
async fn only_who_shows_a_certificate_in_force_is_heard() {
    let ours = Authority::new();
    let theirs = Authority::new();
    let now = wall_clock();
    let harness =
        Harness::with(|config| ours.listening(&config, "operator = [\"cert:alice\", \"cert:alice@ops\"]", "")).await;
    let client = |certificate: &Certificate| ours.client(Some(certificate));

    assert_eq!(reason(&harness, &client(&ours.issue("alice")), &[]).await, "200");
    assert_eq!(reason(&harness, &client(&ours.issue("alice@ops")), &[]).await, "200");
    let expired = ours.issue_with("alice", |params| {
        (params.not_before, params.not_after) = (now - time::Duration::days(9), now - time::Duration::days(1));
    });
    let early = ours.issue_with("alice", |params| {
        (params.not_before, params.not_after) = (now + time::Duration::days(1), now + time::Duration::days(9));
    });
    let for_servers =
        ours.issue_with("alice", |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    for (what, client) in [
        ("no certificate", ours.client(None)),
        ("another authority's", client(&theirs.issue("alice"))),
        ("expired", client(&expired)),
        ("not valid yet", client(&early)),
        ("for servers", client(&for_servers)),
    ] {
        let answer = call(&harness, &client, "GET", "/v1/accounts", &[]).await;
        assert!(answer.is_none(), "{what}: {answer:?}");
    }

    let email = |name: &str| vec![SanType::Rfc822Name(name.try_into().unwrap())];
    let two = ours.issue_with("alice", |params| params.subject_alt_names = email("bob@ops"));
    assert_eq!(reason(&harness, &client(&two), &[]).await, "certificate-name");
    assert_eq!(reason(&harness, &client(&ours.issue("uid:0")), &[]).await, "certificate-name");
    for nobody in ["bob", "Alice", "root", "0", "uid"] {
        assert_eq!(reason(&harness, &client(&ours.issue(nobody)), &[]).await, "role-required", "{nobody}");
    }

    // A page in a browser that has the certificate must not act for its owner.
    let alice = client(&ours.issue("alice"));
    for fields in [
        [("Origin", "https://evil.example")],
        [("Origin", "null")],
        [("Sec-Fetch-Site", "cross-site")],
        [("Sec-Fetch-Site", "same-site")],
    ] {
        assert_eq!(reason(&harness, &alice, &fields).await, "foreign-origin", "{fields:?}");
    }
    assert_eq!(reason(&harness, &alice, &[("Sec-Fetch-Site", "none")]).await, "200");
    harness.finish().await;
}

#[tokio::test]
async fn a_list_that_changes_is_in_force_at_the_next_look_and_one_that_breaks_is_not() {
    let ours = Authority::new();
    let crl = ours.revoke(&[66]);
    let line = format!(", client_crl = {:?}", crl.display().to_string());
    let harness = Harness::with(|config| ours.listening(&config, "operator = [\"cert:alice\"]", &line)).await;
    let serial =
        |number: u64| ours.issue_with("alice", |params| params.serial_number = Some(SerialNumber::from(number)));
    let alice = ours.client(Some(&serial(7)));
    let answered = async |who: &Arc<rustls::ClientConfig>| call(&harness, who, "GET", "/v1/accounts", &[]).await;
    assert_eq!(answered(&alice).await.unwrap().0, 200);
    let mut open = OpenAdmin::connect(&harness, &alice).await;
    assert_eq!(open.ask("/v1/accounts").await, Some(200));
    harness.running.upkeep().await.unwrap();
    assert_eq!(open.ask("/v1/accounts").await, Some(200), "nothing has changed");

    std::fs::write(&crl, "-----BEGIN X509 CRL-----\nAAAA").unwrap();
    harness.running.upkeep().await.unwrap();
    assert_eq!(
        (answered(&alice).await.unwrap().0, open.ask("/v1/accounts").await),
        (200, Some(200)),
        "the former list holds"
    );
    let revoked = ours.client(Some(&serial(66)));
    assert!(answered(&revoked).await.is_none());
    assert!(logs::captured().contains("the former one holds"));

    ours.revoke(&[7]);
    harness.running.upkeep().await.unwrap();
    assert_eq!(open.ask("/v1/accounts").await, None, "who came in before comes again");
    assert!(answered(&alice).await.is_none());
    assert_eq!(answered(&revoked).await.unwrap().0, 200, "no longer on it");
    std::fs::remove_file(&crl).unwrap();
    harness.running.upkeep().await.unwrap();
    assert!(answered(&alice).await.is_none(), "a list that is gone revokes all the same");
    harness.finish().await;
}

#[tokio::test]
async fn a_revoked_certificate_is_refused() {
    let ours = Authority::new();
    let crl = format!(", client_crl = {:?}", ours.revoke(&[66]).display().to_string());
    let harness = Harness::with(|config| ours.listening(&config, "operator = [\"cert:alice\"]", &crl)).await;
    let serial =
        |serial: u64| ours.issue_with("alice", |params| params.serial_number = Some(SerialNumber::from(serial)));
    assert_eq!(reason(&harness, &ours.client(Some(&serial(65))), &[]).await, "200");
    let revoked = ours.client(Some(&serial(66)));
    assert!(call(&harness, &revoked, "GET", "/v1/accounts", &[]).await.is_none());
    harness.finish().await;
}

/// Every verb of the description, with the role that it takes. A verb that is missing here fails the test.
const VERBS: &[(&str, &[&str])] = &[
    ("delete /v1/accounts/{account}/pin", &["operator"]),
    ("delete /v1/accounts/{account}/sessions", &["operator"]),
    ("delete /v1/backups/{id}", &["security"]),
    ("delete /v1/bindings/{id}", &["operator"]),
    ("delete /v1/keys/{id}", &["security"]),
    ("delete /v1/log", &["operator"]),
    ("delete /v1/sessions/{id}", &["operator"]),
    ("delete /v1/subjects/{account}", &["privacy"]),
    ("get /v1/accounts", &["operator"]),
    ("get /v1/accounts/{account}", &["operator"]),
    ("get /v1/accounts/{account}/bindings", &["operator"]),
    ("get /v1/accounts/{account}/sessions", &["operator"]),
    ("get /v1/approvals", &["security", "privacy", "auditor"]),
    ("get /v1/audit", &["security", "auditor"]),
    ("get /v1/audit/export", &["security", "auditor"]),
    ("get /v1/audit/pseudonyms/{account}", &["security", "auditor"]),
    ("get /v1/audit/verify", &["security", "auditor"]),
    ("get /v1/backups", &ROLES),
    ("get /v1/backups/{id}", &ROLES),
    ("get /v1/bindings", &["operator"]),
    ("get /v1/bindings/stats", &["security", "auditor"]),
    ("get /v1/erasures", &["privacy"]),
    ("get /v1/keys", &["security", "auditor"]),
    ("get /v1/keys/{id}", &["security", "auditor"]),
    ("get /v1/keys/{id}/public", &["security", "auditor"]),
    ("get /v1/log", &["operator"]),
    ("get /v1/policy", &["privacy", "auditor"]),
    ("get /v1/policy/history", &["privacy", "auditor"]),
    ("get /v1/policy/history/{id}", &["privacy", "auditor"]),
    ("get /v1/posture", &["privacy", "auditor"]),
    ("get /v1/retention", &["privacy", "auditor"]),
    ("get /v1/rotations", &["security", "auditor"]),
    ("get /v1/rotations/{id}", &["security", "auditor"]),
    ("get /v1/rotations/{id}/receipt", &["security", "auditor"]),
    ("get /v1/sessions", &["operator"]),
    ("get /v1/stats", &["privacy"]),
    ("get /v1/status", &ROLES),
    ("get /v1/subjects/{account}/export", &["privacy"]),
    ("post /v1/accounts/{account}/codes", &["operator"]),
    ("post /v1/accounts/{account}/resume", &["operator"]),
    ("post /v1/accounts/{account}/suspend", &["operator"]),
    ("post /v1/approvals/{id}", &["security", "privacy"]),
    ("post /v1/backups", &["operator"]),
    ("post /v1/bindings/import", &["operator"]),
    ("post /v1/drills/compromise", &["security"]),
    ("post /v1/keys", &["security"]),
    ("post /v1/keys/rewrap", &["security"]),
    ("post /v1/keys/{id}/activate", &["security"]),
    ("post /v1/keys/{id}/compromise", &["security"]),
    ("post /v1/keys/{id}/resume", &["security"]),
    ("post /v1/keys/{id}/suspend", &["security"]),
    ("post /v1/logs/read", &["privacy", "auditor"]),
    ("post /v1/reload", &["operator"]),
    ("post /v1/retention/run", &["privacy"]),
    ("post /v1/rotations", &["security"]),
    ("post /v1/rotations/{id}/abort", &["security"]),
    ("post /v1/rotations/{id}/pause", &["security"]),
    ("post /v1/rotations/{id}/rescan", &["security"]),
    ("post /v1/rotations/{id}/resume", &["security"]),
    ("post /v1/subjects/{account}/hold", &["privacy"]),
    ("post /v1/subjects/{account}/release", &["privacy"]),
    ("post /v1/subjects/{account}/resume", &["privacy"]),
    ("post /v1/subjects/{account}/stop", &["privacy"]),
    ("put /v1/log", &["operator"]),
    ("put /v1/subjects/{account}/bindings/{id}/label", &["privacy"]),
];

const ROLES: [&str; 4] = ["operator", "security", "privacy", "auditor"];

#[tokio::test]
async fn each_verb_takes_its_role_and_no_other() {
    let ours = Authority::new();
    let roles = ROLES.map(|role| format!("{role} = [\"cert:{role}\"]")).join("\n");
    let harness = Harness::with(|config| ours.listening(&config, &roles, "")).await;
    let clients = ROLES.map(|role| (role, ours.client(Some(&ours.issue(role)))));
    let (_, description) = call(&harness, &clients[0].1, "GET", "/openapi.json", &[]).await.unwrap();
    let mut described = Vec::new();
    for (path, item) in description["paths"].as_object().unwrap() {
        described.extend(item.as_object().unwrap().keys().map(|method| format!("{method} {path}")));
    }
    described.sort();
    assert_eq!(described, VERBS.iter().map(|(verb, _)| *verb).collect::<Vec<_>>());
    for (verb, taken) in VERBS {
        let (method, path) = verb.split_once(' ').unwrap();
        let path = path.replace("{account}", "alice").replace("{id}", "00000000-0000-4000-8000-000000000000");
        for (role, client) in &clients {
            let (status, document) =
                call(&harness, client, &method.to_uppercase(), &path, &[]).await.unwrap_or_else(|| panic!("{verb}"));
            let refused = document["error"]["reason"] == "role-required";
            assert_eq!(refused, !taken.contains(role), "{verb} as {role}: {status} {document}");
            assert_eq!(refused, status == 403, "{verb} as {role}: {status} {document}");
            // The security team sees who asked for what, and not about whom or which.
            let told = logs::captured();
            let asked = format!("verb={:?}", verb.replacen(method, &method.to_uppercase(), 1));
            let by = format!("by=cert:{role} ");
            let is_it = |line: &&str| line.contains("role-refused") && line.contains(&asked) && line.contains(&by);
            assert_eq!(told.lines().any(|line| is_it(&line)), refused, "{verb} as {role}");
            let of_ids =
                |line: &&str| line.contains("role-refused") && (line.contains("alice") || line.contains("0000-"));
            assert_eq!(told.lines().find(of_ids), None);
        }
    }
    harness.finish().await;
}

#[tokio::test]
async fn the_command_line_shows_its_certificate_and_verifies_the_gateway() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let harness = Harness::with(|config| ours.listening(&config, "operator = [\"cert:alice\"]", "")).await;
    let port = admin_address(&harness).port();
    let client = |certificate: &Certificate, ca: &Authority, host: &str, port: u16| {
        let url = AdminUrl::parse(&format!("https://{host}:{port}")).unwrap();
        let shown = ClientCertificate { certificate: certificate.pem_file.clone(), key: certificate.key_file.clone() };
        let certified = VerifyingClient::load(Some(&shown), Some(&ca.ca_file())).unwrap();
        AdminClient::over_tls(url, certified)
    };
    let asked = async |client: AdminClient| client.call::<Value>(Method::GET, "/v1/accounts").await;
    let alice = ours.issue("alice");
    assert_eq!(asked(client(&alice, &ours, HOST, port)).await.unwrap(), serde_json::json!({"accounts": []}));
    let refused = asked(client(&ours.issue("bob"), &ours, HOST, port)).await;
    assert!(matches!(&refused, Err(ClientError::Refused(detail)) if detail.reason == "role-required"), "{refused:?}");
    for (what, client) in [
        ("not ours", client(&theirs.issue("alice"), &ours, HOST, port)),
        ("another gateway", client(&alice, &theirs, HOST, port)),
        ("another name", client(&alice, &ours, "127.0.0.1", port)),
    ] {
        let failed = asked(client).await;
        assert!(matches!(&failed, Err(ClientError::Tls { .. })), "{what}: {failed:?}");
    }
    harness.finish().await;
    let gone = asked(client(&alice, &ours, HOST, port)).await;
    assert!(matches!(gone, Err(ClientError::Unreachable { .. })), "{gone:?}");
}
