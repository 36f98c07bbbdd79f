//! Calls of one process to one token, in a process of their own: what a module is told stands in its environment.

use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sekisho::clock::Timestamp;
use sekisho::config::{KekSource, SecretSource, StretchSetting, TokenKey};
use sekisho::entropy::SystemEntropy;
use sekisho::keys::{Kek, KekError, KeySet, KeysError, TokenFault};
use sekisho::store::EmbeddedStore;

use crate::token::{PIN, Token};

/// Set for the process that makes the calls.
const INSIDE: &str = "SEKISHO_TEST_INSIDE";

#[tokio::test]
async fn a_running_process_outlives_the_absence_of_its_token() {
    let token = Token::new();
    token.proxy();
    let mut inside = tokio::process::Command::new(std::env::current_exe().unwrap());
    inside.args(["--exact", "calls::inside", "--nocapture"]).envs(token.environment()).env(INSIDE, "1");
    let output = inside.stdin(Stdio::null()).kill_on_drop(true).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(told.contains("1 passed"), "{told}");
}

/// Does nothing unless it is the process that the test above started.
#[tokio::test]
async fn inside() {
    if std::env::var_os(INSIDE).is_none() {
        return;
    }
    let token = Here(std::env::var_os("PROXY_FOLDER").unwrap().into());
    token.write("pin", PIN);
    let key = TokenKey {
        module: token.0.join("proxy.so"),
        token: "sekisho".into(),
        key: "kek".into(),
        pin: SecretSource::File(token.0.join("pin")),
        timeout: Duration::from_secs(2),
    };
    let entropy = SystemEntropy::default();
    let now = Timestamp::from_unix_millis(0);
    let (kek, doubts) = Kek::open(&KekSource::Token(key.clone()), &entropy).await.ok().unwrap();
    assert_eq!(doubts, Vec::<String>::new());
    let kek = Arc::new(kek);
    let (store, _) = EmbeddedStore::open(&token.0.join("store"), now, &entropy).unwrap();
    assert!(KeySet::open(&store, &kek, StretchSetting::Off, &entropy, now).await.is_ok());
    let opens = async || match KeySet::inspect(&store, &kek, StretchSetting::Off).await {
        Ok(keys) => keys.map(drop).ok_or(TokenFault::Untrue),
        Err(KeysError::Kek(KekError::Token { fault, .. })) => Err(fault),
        Err(other) => panic!("{other}"),
    };

    // A call for each key and each secret of the store.
    let before = token.logins();
    assert!(opens().await.is_ok());
    let once = token.logins() - before;

    // Away and back, twice.
    for _ in 0..2 {
        token.write("away", "");
        assert!(matches!(opens().await, Err(TokenFault::NoToken)));
        token.remove("away");
        assert!(opens().await.is_ok());
    }
    // The tokens' folder itself goes and comes.
    std::fs::rename(token.0.join("tokens"), token.0.join("gone")).unwrap();
    let fault = opens().await.unwrap_err();
    assert!(matches!(fault, TokenFault::NoToken | TokenFault::Module(_) | TokenFault::Failed(_)), "{fault}");
    std::fs::rename(token.0.join("gone"), token.0.join("tokens")).unwrap();
    assert!(opens().await.is_ok());

    // A wrong PIN is tried once, however often it is asked for; the right one works at once.
    token.write("pin", "wrong-pin");
    let before = token.logins();
    assert!(matches!(opens().await, Err(TokenFault::PinWrong)));
    assert!(matches!(opens().await, Err(TokenFault::PinRefusedBefore)));
    assert_eq!(token.logins(), before + 1);
    token.write("pin", PIN);
    assert!(opens().await.is_ok());

    // It hangs: the caller is told in time, the runtime goes on, calls beyond the queue are told at once.
    let fifo = token.0.join("hang");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let began = Instant::now();
    let many = futures_util::future::join_all((0..30).map(|_| opens())).await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    let count = |wanted: fn(&TokenFault) -> bool| many.iter().filter(|o| o.as_ref().is_err_and(wanted)).count();
    assert!(count(|f| matches!(f, TokenFault::Slow(_))) >= 16);
    assert!(count(|f| matches!(f, TokenFault::Busy)) >= 12);
    assert!(many.iter().all(Result::is_err));
    // It answers again, and so does what comes after; what nobody waits for any more is not done.
    let before = token.logins();
    let released = tokio::task::spawn_blocking(move || {
        let opened = std::fs::OpenOptions::new().write(true).open(&fifo).unwrap();
        std::fs::remove_file(&fifo).unwrap();
        drop(opened);
    });
    released.await.unwrap();
    // The queue is full of calls that nobody waits for until the thread has looked at each.
    let served = async {
        while matches!(opens().await, Err(TokenFault::Busy)) {
            tokio::task::yield_now().await;
        }
        opens().await
    };
    assert!(tokio::time::timeout(Duration::from_secs(30), served).await.unwrap().is_ok());
    // Once in vain at most, before the one that is awaited.
    assert!(token.logins() <= before + 2 * once, "{} after {before}, {once} each", token.logins());

    // A token that fails is not taken for the wrong KEK, and the wrong KEK not for a token that fails.
    token.write("broken", "");
    assert!(matches!(opens().await, Err(TokenFault::Failed(_))));
    token.remove("broken");
    let file = Kek::parse(&Kek::generate_text(&entropy)).unwrap();
    assert!(matches!(KeySet::inspect(&store, &file, StretchSetting::Off).await, Err(KeysError::WrongKek)));
    let (foreign, _) = EmbeddedStore::open(&token.0.join("foreign"), now, &entropy).unwrap();
    assert!(KeySet::open(&foreign, &file, StretchSetting::Off, &entropy, now).await.is_ok());
    assert!(matches!(KeySet::inspect(&foreign, &kek, StretchSetting::Off).await, Err(KeysError::WrongKek)));
    assert!(opens().await.is_ok());
}

/// The token's folder, seen from inside.
struct Here(std::path::PathBuf);

impl Here {
    fn write(&self, name: &str, content: &str) {
        std::fs::write(self.0.join(name), content).unwrap();
    }

    fn remove(&self, name: &str) {
        std::fs::remove_file(self.0.join(name)).unwrap();
    }

    fn logins(&self) -> usize {
        std::fs::read(self.0.join("logins")).unwrap().len()
    }
}
