//! Several certificates of one listener, and TLS sessions that resume, whichever core has the connection.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, RootCertStore, SupportedProtocolVersion};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::harness::{Carrier, HOST, Handset, Harness};
use crate::wire::{connect, pem, soon};

const SOURCE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 4, 7));

/// A listener with a certificate for [`HOST`], and more for other names; all made by nobody in particular.
struct Shop {
    harness: Harness,
    folder: TempDir,
}

impl Shop {
    /// The first certificate is for [`HOST`].
    async fn with(additional: &[&[&str]]) -> Self {
        let folder = TempDir::new().unwrap();
        let at = folder.path().display().to_string();
        make(&folder, "first", &[HOST]);
        let mut pairs = Vec::new();
        for (index, names) in additional.iter().enumerate() {
            make(&folder, &index.to_string(), names);
            pairs.push(format!("{{ certificate = \"{at}/{index}.pem\", key = \"{at}/{index}.key\" }}"));
        }
        let harness = Harness::with(|config| {
            format!(
                "{config}\n[[listener]]\nserves = \"handset\"\naddress = \"127.0.0.1:0\"\n\
                 tls = {{ certificate = \"{at}/first.pem\", key = \"{at}/first.key\", additional = [{}] }}\n",
                pairs.join(", ")
            )
        })
        .await;
        Self { harness, folder }
    }

    /// A client that trusts all of them, keeps tickets, and speaks these versions.
    fn client(&self, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        for file in std::fs::read_dir(self.folder.path()).unwrap().map(|file| file.unwrap().path()) {
            if file.extension().is_some_and(|extension| extension == "pem") {
                roots.add(CertificateDer::from_pem_file(file).unwrap()).unwrap();
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
        builder.with_root_certificates(roots).with_no_client_auth()
    }

    async fn connect(&self, client: &Arc<ClientConfig>, name: &str) -> Result<TlsStream<TcpStream>, std::io::Error> {
        let tcp = connect(SOURCE, self.harness.tls_address()).await;
        soon(TlsConnector::from(Arc::clone(client)).connect(ServerName::try_from(name.to_owned()).unwrap(), tcp)).await
    }

    /// The file whose certificate a client gets that asks for `name`; the client believes anything.
    async fn shown(&self, client: &Arc<ClientConfig>, name: &str) -> String {
        let stream = match self.connect(client, name).await {
            Ok(stream) => stream,
            Err(error) => return error.to_string(),
        };
        let shown = stream.get_ref().1.peer_certificates().unwrap()[0].clone();
        let mut files = std::fs::read_dir(self.folder.path()).unwrap().map(|file| file.unwrap().path());
        let is_it = |file: &std::path::PathBuf| CertificateDer::from_pem_file(file).is_ok_and(|it| it == shown);
        files.find(is_it).unwrap().file_stem().unwrap().to_str().unwrap().to_owned()
    }
}

fn make(folder: &TempDir, file: &str, names: &[&str]) {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    std::fs::write(folder.path().join(format!("{file}.pem")), pem("CERTIFICATE", made.cert.der())).unwrap();
    let key = folder.path().join(format!("{file}.key"));
    std::fs::write(&key, pem("PRIVATE KEY", &made.signing_key.serialize_der())).unwrap();
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}

#[tokio::test]
async fn a_client_gets_the_certificate_of_the_name_that_it_asks_for() {
    let shop = Shop::with(&[&["shop.example.jp", "www.example.jp"], &["*.example.jp"], &["one.two.example.jp"]]).await;
    for versions in [&[&rustls::version::TLS12], &[&rustls::version::TLS13]] {
        let client = Arc::new(shop.client(versions));
        for (name, expected) in [
            (HOST, "first"),
            ("ADMIN.example.JP", "first"),
            ("shop.example.jp", "0"),
            ("WWW.Example.jp", "0"),
            ("any.example.jp", "1"),
            ("one.two.example.jp", "2"),
        ] {
            assert_eq!(shop.shown(&client, name).await, expected, "{name}");
        }
        // These get the first, which is not theirs: a wildcard stands for one label.
        for name in ["example.jp", "x.y.example.jp", "elsewhere.example"] {
            let refused = shop.shown(&client, name).await;
            assert!(refused.contains("not valid for name") && refused.contains(HOST), "{name}: {refused}");
        }
        let mut nameless = shop.client(versions);
        nameless.enable_sni = false;
        assert_eq!(shop.shown(&Arc::new(nameless), HOST).await, "first");
    }
    // A certificate opens no host: that is for the allow-list.
    let mut handset = Handset::new(shop.harness.tls_address(), Carrier::PrivateApn, "a");
    (handset.tls, handset.host) = (Some(Arc::new(shop.client(rustls::ALL_VERSIONS))), "shop.example.jp".to_owned());
    assert_eq!(handset.get("/public").await.status, StatusCode::MISDIRECTED_REQUEST);
    shop.harness.finish().await;
}

/// Asks for a page and reads to the end, so that tickets have come.
async fn ask(stream: &mut TlsStream<TcpStream>) {
    let request = format!("GET /public/x HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    soon(stream.read_to_end(&mut answer)).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200 OK"), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn a_tls_session_resumes_on_every_core_and_nothing_is_read_before_the_handshake() {
    let shop = Shop::with(&[]).await;
    for versions in [&[&rustls::version::TLS12], &[&rustls::version::TLS13]] {
        let mut client = shop.client(versions);
        client.enable_early_data = true;
        let client = Arc::new(client);
        let mut first = shop.connect(&client, HOST).await.unwrap();
        assert_eq!(first.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
        ask(&mut first).await;
        // The kernel spreads these over the workers: that one of two gets them all is once in 8 million.
        for _ in 0..24 {
            let mut again = shop.connect(&client, HOST).await.unwrap();
            assert_eq!(again.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed), "{versions:?}");
            assert!(!again.get_ref().1.is_early_data_accepted());
            ask(&mut again).await;
        }
        // Who keeps no ticket begins anew.
        let stranger = Arc::new(shop.client(versions));
        let full = shop.connect(&stranger, HOST).await.unwrap();
        assert_eq!(full.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
    }
    shop.harness.finish().await;
}

/// How a client's handshake went; it has tickets of this connection afterwards.
async fn shakes_hands(shop: &Shop, client: &Arc<ClientConfig>) -> Option<HandshakeKind> {
    let mut stream = shop.connect(client, HOST).await.unwrap();
    let kind = stream.get_ref().1.handshake_kind();
    ask(&mut stream).await;
    kind
}

#[tokio::test]
async fn a_ticket_is_good_for_one_turn_of_the_keys_and_not_for_two() {
    const TURN: Duration = Duration::from_hours(6);
    let (full, resumed) = (Some(HandshakeKind::Full), Some(HandshakeKind::Resumed));
    let mut shop = Shop::with(&[]).await;
    for versions in [&[&rustls::version::TLS12], &[&rustls::version::TLS13]] {
        let [prompt, late, in_between] = [(); 3].map(|()| Arc::new(shop.client(versions)));
        for client in [&prompt, &late] {
            assert_eq!(shakes_hands(&shop, client).await, full, "{versions:?}");
        }
        shop.harness.clock.advance(TURN);
        shop.harness.running.upkeep().await.unwrap();
        assert_eq!(shakes_hands(&shop, &prompt).await, resumed, "{versions:?}");
        assert_eq!(shakes_hands(&shop, &in_between).await, full, "{versions:?}");
        shop.harness.clock.advance(TURN);
        shop.harness.running.upkeep().await.unwrap();
        assert_eq!(shakes_hands(&shop, &late).await, full, "{versions:?}: its key is gone");
        // What came since is good, on whichever core.
        for client in [&prompt, &late, &in_between] {
            for _ in 0..4 {
                assert_eq!(shakes_hands(&shop, client).await, resumed, "{versions:?}");
            }
        }
    }

    // Another certificate begins with another key, whatever the client trusts; so does another process.
    make(&shop.folder, "next", &[HOST]);
    let client = Arc::new(shop.client(rustls::ALL_VERSIONS));
    assert_eq!(shakes_hands(&shop, &client).await, full);
    assert_eq!(shakes_hands(&shop, &client).await, resumed);
    for kind in ["pem", "key"] {
        let [next, first] = ["next", "first"].map(|name| shop.folder.path().join(format!("{name}.{kind}")));
        std::fs::copy(next, first).unwrap();
    }
    shop.harness.reload(|config| config).await.unwrap();
    assert_eq!(shakes_hands(&shop, &client).await, full);
    assert_eq!(shakes_hands(&shop, &client).await, resumed);
    shop.harness = shop.harness.restart().await;
    assert_eq!(shakes_hands(&shop, &client).await, full);
    assert_eq!(shakes_hands(&shop, &client).await, resumed);
    shop.harness.finish().await;
}

#[tokio::test]
async fn other_additional_certificates_come_with_a_reload_all_or_none() {
    let mut shop = Shop::with(&[&["shop.example.jp"], &["*.example.jp"]]).await;
    let former = Arc::new(shop.client(rustls::ALL_VERSIONS));
    let mut open = shop.connect(&former, "any.example.jp").await.unwrap();
    ask(&mut shop.connect(&former, "shop.example.jp").await.unwrap()).await;
    let kind = async |shop: &Shop, client: &Arc<ClientConfig>| {
        let mut stream = shop.connect(client, "shop.example.jp").await.unwrap();
        let kind = stream.get_ref().1.handshake_kind();
        ask(&mut stream).await;
        kind
    };
    // What changed nothing: tickets from before are good.
    shop.harness.reload(|config| config).await.unwrap();
    assert_eq!(kind(&shop, &former).await, Some(HandshakeKind::Resumed));

    // One is renewed, for one name more; one goes; one is added.
    make(&shop.folder, "0", &["shop.example.jp", "www.example.jp"]);
    make(&shop.folder, "2", &["new.example.jp"]);
    let at = shop.folder.path().display().to_string();
    let pair = |name: &str| format!("{{ certificate = \"{at}/{name}.pem\", key = \"{at}/{name}.key\" }}");
    shop.harness.reload(|config| config.replace(&pair("1"), &pair("2"))).await.unwrap();
    let holds = async |shop: &Shop| {
        let client = Arc::new(shop.client(rustls::ALL_VERSIONS));
        // The kernel spreads them over the workers.
        for _ in 0..8 {
            for (name, expected) in
                [(HOST, "first"), ("shop.example.jp", "0"), ("www.example.jp", "0"), ("new.example.jp", "2")]
            {
                assert_eq!(shop.shown(&client, name).await, expected, "{name}");
            }
        }
        let gone = shop.shown(&client, "any.example.jp").await;
        assert!(gone.contains("not valid for name") && gone.contains(HOST), "{gone}");
    };
    holds(&shop).await;
    let refused = shop.connect(&former, "shop.example.jp").await.unwrap_err();
    assert!(
        refused.to_string().contains("invalid peer certificate"),
        "no ticket brings the former certificate back: {refused}"
    );
    // Who is connected stays.
    open.write_all(format!("GET /public/x HTTP/1.1\r\nHost: {HOST}\r\n\r\n").as_bytes()).await.unwrap();
    let mut first = [0; 15];
    soon(open.read_exact(&mut first)).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200 OK");

    // A name that two have, a key of another certificate, a file that is not there: the former ones hold.
    make(&shop.folder, "3", &["three.example.jp", "new.example.jp"]);
    let mixed = format!("{{ certificate = \"{at}/3.pem\", key = \"{at}/2.key\" }}");
    for (added, told) in [(pair("3"), "3.pem"), (mixed, "2.key"), (pair("none"), "none.pem")] {
        let both = format!("{}, {added}", pair("2"));
        let findings = shop.harness.reload(|config| config.replace(&pair("2"), &both)).await.unwrap_err();
        let named = |finding: &String| finding.contains(": listener[2].tls: ") && finding.contains(told);
        assert!(findings.iter().any(named), "{told}: {findings:?}");
        holds(&shop).await;
    }

    // None at all: everybody gets the first.
    let all = format!("[{}, {}]", pair("0"), pair("2"));
    shop.harness.reload(|config| config.replace(&all, "[]")).await.unwrap();
    let client = Arc::new(shop.client(rustls::ALL_VERSIONS));
    assert_eq!(shop.shown(&client, HOST).await, "first");
    assert!(shop.shown(&client, "new.example.jp").await.contains("not valid for name"));
    shop.harness.finish().await;
}
