use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::harness::{Gateway, Server, empty, raw, read_head, serve, timeouts};

/// An upstream that agrees to any upgrade and then echoes.
async fn echo() -> Server {
    serve(|mut request: Request<Incoming>| async move {
        let upgrade = hyper::upgrade::on(&mut request);
        assert_eq!(request.headers()["connection"], "upgrade");
        tokio::spawn(async move {
            let (mut from, mut to) = tokio::io::split(TokioIo::new(upgrade.await.unwrap()));
            let _ = tokio::io::copy(&mut from, &mut to).await;
            let _ = to.shutdown().await;
        });
        let protocol = request.headers()["upgrade"].clone();
        let response = Response::builder().status(101).header("connection", "upgrade").header("upgrade", protocol);
        response.header("sekisho-bind", "account").body(empty()).unwrap()
    })
    .await
}

async fn upgraded(gateway: &Gateway) -> (TcpStream, String) {
    let mut client = gateway.connect().await;
    let request =
        "GET /ws HTTP/1.1\r\nhost: admin.example.jp\r\nconnection: keep-alive, Upgrade\r\nupgrade: websocket\r\n\r\n";
    client.write_all(request.as_bytes()).await.unwrap();
    let head = read_head(&mut client).await;
    (client, head)
}

async fn says(client: &mut TcpStream, word: &[u8]) -> Vec<u8> {
    client.write_all(word).await.unwrap();
    let mut echoed = vec![0; word.len()];
    client.read_exact(&mut echoed).await.unwrap();
    echoed
}

#[tokio::test]
async fn an_upgrade_is_spliced_until_a_side_closes() {
    let gateway = Gateway::new(&[echo().await.address], timeouts()).await;
    let (mut client, head) = upgraded(&gateway).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.contains("connection: upgrade\r\n") && head.contains("upgrade: websocket\r\n"), "{head}");
    assert!(!head.contains("sekisho"), "{head}");
    assert_eq!(says(&mut client, b"one").await, b"one");
    assert_eq!(says(&mut client, b"two").await, b"two");
    client.shutdown().await.unwrap();
    assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
}

#[tokio::test]
async fn an_upgrade_ends_with_its_session() {
    let gateway = Gateway::new(&[echo().await.address], timeouts()).await;
    let (mut client, _) = upgraded(&gateway).await;
    assert_eq!(says(&mut client, b"one").await, b"one");
    gateway.end.come();
    assert!(matches!(client.read(&mut [0; 1]).await, Ok(0) | Err(_)));
}

#[tokio::test]
async fn a_switch_that_nobody_asked_for_is_no_answer() {
    let server = raw(|_, mut stream| async move {
        read_head(&mut stream).await;
        let switch = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n";
        stream.write_all(switch.as_bytes()).await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let gateway = Gateway::new(&[server.address], timeouts()).await;
    assert_eq!(gateway.refusal(Request::get("/"), empty()).await, "upstream-unreachable");
    let h2c = Request::get("/").header("connection", "upgrade, http2-settings").header("upgrade", "h2c");
    assert_eq!(gateway.refusal(h2c, empty()).await, "upstream-unreachable");
}
