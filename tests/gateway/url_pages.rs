//! Pages of a session in URLs, as they are on the wire: every byte, every charset, whatever the console says of them.

use http::StatusCode;

use crate::harness::{Carrier, HOST, Handset, Harness};
use crate::url_sessions::{Cookieless, token};
use crate::wire::{PlayedUpstream, RawAnswer, Wire};

/// A handset without cookies that is signed in, and the console that is played to it.
struct Stage {
    harness: Harness,
    upstream: PlayedUpstream,
    handset: Handset,
    sk: String,
}

impl Stage {
    async fn set() -> Self {
        let upstream = PlayedUpstream::start().await;
        let harness = Harness::with(|config| upstream.routed(&config, "session", "")).await;
        let mut handset = Cookieless::new(&harness, Carrier::SoftBank, "a");
        let url = handset.enrol(&harness, "/", "alice").await;
        Self { sk: token(&url), handset: handset.into_handset(), harness, upstream }
    }

    /// Asks for the page with these fields; both ends, the console's after it has seen the head.
    async fn ask(&self, method: &str, version: &str, fields: &str) -> (Wire, Wire, String) {
        let mut client = Wire::connect(self.handset.source, self.harness.address()).await;
        let identity =
            format!("{}: {}\r\n", self.handset.carrier.header(), self.handset.identifier.as_deref().unwrap());
        let target = format!("/played/dir/page?q=1&_sk={}", self.sk);
        client.send(format!("{method} {target} HTTP/{version}\r\nHost: {HOST}\r\n{identity}{fields}\r\n")).await;
        let mut server = self.upstream.accept().await;
        let seen = server.head().await.to_ascii_lowercase();
        assert!(seen.starts_with(&format!("{} /played/dir/page?q=1 http/1.1\r\n", method.to_lowercase())), "{seen}");
        assert!(seen.contains("\r\naccept-encoding: identity\r\n"), "{seen}");
        (client, server, seen)
    }

    /// What the handset gets of a page that the console sends byte by byte.
    async fn shown(&self, content_type: &str, page: &[u8]) -> RawAnswer {
        let (mut client, mut server, _) = self.ask("GET", "1.1", "").await;
        let length = page.len();
        let said = if content_type.is_empty() { String::new() } else { format!("Content-Type: {content_type}\r\n") };
        server.send(format!("HTTP/1.1 200 OK\r\n{said}Content-Length: {length}\r\n\r\n")).await;
        for byte in page {
            server.send([*byte]).await;
        }
        client.answer().await
    }

    /// `_sk=T` in it stands for the token.
    fn with_token(&self, page: &[u8]) -> Vec<u8> {
        let token = regex::bytes::Regex::new("(?-u)_sk=T").unwrap();
        token.replace_all(page, format!("_sk={}", self.sk).as_bytes()).into_owned()
    }

    async fn end(self) {
        self.harness.finish_without(&[&self.sk]).await;
    }
}

fn in_utf_16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

#[tokio::test]
async fn every_byte_that_is_no_link_arrives_in_every_charset() {
    let stage = Stage::set().await;
    for (content_type, page, expected) in [
        // Second bytes 0x5C and 0x3C's neighbours, half-width kana, emoji of docomo, au and SoftBank.
        (
            "text/html; charset=Shift_JIS",
            &b"<p title=\"\x95\x5C\x83\x5C\">\xB1\xB2\xF8\x9F\xF3\x40\xF9\x41\x1B$Gj<\"\x0F<a href=\"/\x95\x5C?q=\xF8\x9F\">"[..],
            &b"<p title=\"\x95\x5C\x83\x5C\">\xB1\xB2\xF8\x9F\xF3\x40\xF9\x41\x1B$Gj<\"\x0F<a href=\"/\x95\x5C?_sk=T&amp;q=\xF8\x9F\">"[..],
        ),
        (
            "application/xhtml+xml;charset=euc-jp",
            b"<p>\xC9\xBD\x8E\xB1\x8F\xB0\xA1\xF5\xA1<a href='/\xC9\xBD'/>",
            b"<p>\xC9\xBD\x8E\xB1\x8F\xB0\xA1\xF5\xA1<a href='/\xC9\xBD?_sk=T'/>",
        ),
        ("TEXT/HTML", "<p>表ｱ😀<a href='/表?q=ソ'>".as_bytes(), "<p>表ｱ😀<a href='/表?_sk=T&amp;q=ソ'>".as_bytes()),
        // ISO-2022-JP, by field, by element and by nothing: characters that look like tags and quotes in 7 bits.
        (
            "text/html; charset=ISO-2022-JP",
            b"<title>\x1B$B<\"=a>\x1B(B</title>\x1B$@\"'<a>\x1B(J<a title=\"\x1B$B\"\"\x1B(B\" href='/\x1B$BI=\x1B(B?x'>\x1B(I<1\x1B(B<a href=/b>",
            b"<title>\x1B$B<\"=a>\x1B(B</title>\x1B$@\"'<a>\x1B(J<a title=\"\x1B$B\"\"\x1B(B\" href='/\x1B$BI=\x1B(B?_sk=T&amp;x'>\x1B(I<1\x1B(B<a href=/b?_sk=T>",
        ),
        (
            "text/html",
            b"<meta http-equiv=Content-Type content='text/html; charset=ISO-2022-JP'>\x1B$B<a\x1B(B<a href=/b>",
            b"<meta http-equiv=Content-Type content='text/html; charset=ISO-2022-JP'>\x1B$B<a\x1B(B<a href=/b?_sk=T>",
        ),
        ("text/html", b"\x1B$B<a\x1B(B<a href=/b>", b"\x1B$B<a\x1B(B<a href=/b?_sk=T>"),
        // Escapes that are none, twice, broken off, or never taken back.
        (
            "text/html; charset=iso-2022-jp",
            b"\x1B<a href=/a>\x1B$<a href=/b>\x1B(Z<a href=/c>\x1B\x1B(B<a href=/d>\x1B$B<a href=/e>",
            b"\x1B<a href=/a?_sk=T>\x1B$<a href=/b?_sk=T>\x1B(Z<a href=/c?_sk=T>\x1B\x1B(B<a href=/d?_sk=T>\x1B$B<a href=/e>",
        ),
        ("text/html; charset=iso-2022-jp", b"<a href=/a>\x1B$", b"<a href=/a?_sk=T>\x1B$"),
        // Labels that lie.
        ("text/html; charset=utf-8", b"<p>\x95\x5C\xB1<a href=/a?\x95\x5C>", b"<p>\x95\x5C\xB1<a href=/a?_sk=T&amp;\x95\x5C>"),
        (
            "text/html; charset=Shift_JIS",
            "<p>表ソ<a href='/a?表'>".as_bytes(),
            "<p>表ソ<a href='/a?_sk=T&amp;表'>".as_bytes(),
        ),
        ("text/html; charset=euc-jp", b"<p>\x83\x5C<a href=/a>\x95", b"<p>\x83\x5C<a href=/a?_sk=T>\x95"),
        ("text/html; charset=\"no such\"", b"<a href=/a>", b"<a href=/a?_sk=T>"),
        // A page that ends within a tag, a character, a quote.
        ("text/html; charset=Shift_JIS", b"<a href=/a>\x95", b"<a href=/a?_sk=T>\x95"),
        ("text/html", b"<a href=/a><a href=\"/b", b"<a href=/a?_sk=T><a href=\"/b"),
        // Nobody said that it is a page.
        ("text/plain", b"<a href=/a>", b"<a href=/a>"),
        ("", b"<a href=/a>", b"<a href=/a>"),
    ] {
        let answer = stage.shown(content_type, page).await;
        assert_eq!(answer.status(), 200);
        let text = String::from_utf8_lossy(page);
        assert_eq!(answer.body, stage.with_token(expected), "{content_type}: {text} became {}", answer.text());
    }
    let wide = in_utf_16("\u{feff}<p>表</p><a href=\"/a\">");
    let expected = in_utf_16(&format!("\u{feff}<p>表</p><a href=\"/a?_sk={}\">", stage.sk));
    for content_type in ["text/html", "text/html; charset=utf-16", "text/html; charset=Shift_JIS"] {
        assert_eq!(stage.shown(content_type, &wide).await.body, expected, "{content_type}");
    }
    stage.end().await;
}

/// Of a rewritten page nothing is said that was true of the console's bytes, and nothing else is lost.
#[tokio::test]
async fn what_is_said_of_a_page_is_true_of_what_is_sent() {
    let stage = Stage::set().await;
    let fields = "Content-Type: text/html\r\nETag: \"x\"\r\nLast-Modified: Wed, 25 Nov 2026 12:00:00 GMT\r\n\
                  Accept-Ranges: bytes\r\nExpires: Fri, 01 Jan 2100 00:00:00 GMT\r\nX-Console: 1\r\n";
    let asks = "Range: bytes=2-5\r\nIf-Range: \"x\"\r\nIf-None-Match: \"x\"\r\n\
                If-Modified-Since: Wed, 25 Nov 2026 12:00:00 GMT\r\nAccept-Encoding: gzip\r\n";
    let answer = |status: &str, fields: &str, body: &str| {
        format!("HTTP/1.1 {status}\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len())
    };
    let page = "<a href=/a>";
    let rewritten = format!("<a href=/a?_sk={}>", stage.sk);
    for version in ["1.1", "1.0"] {
        let (mut client, mut server, seen) = stage.ask("GET", version, asks).await;
        for name in ["range:", "if-"] {
            assert!(!seen.contains(&format!("\r\n{name}")), "{seen}");
        }
        server.send(answer("200 OK", fields, page)).await;
        let (head, body) = if version == "1.1" {
            let shown = client.answer().await;
            (shown.head.clone(), shown.text())
        } else {
            // No length and no chunks: the end of the connection is the end of the page.
            let head = client.head().await;
            assert!(!head.to_lowercase().contains("transfer-encoding"), "{head}");
            (head, String::from_utf8(client.rest().await).unwrap())
        };
        let head = head.to_lowercase();
        assert_eq!(body, rewritten);
        for gone in ["content-length", "etag", "last-modified", "accept-ranges", "expires"] {
            assert!(!head.contains(&format!("\r\n{gone}:")), "{gone} in {head}");
        }
        assert!(head.contains("\r\ncache-control: no-store\r\n") && head.contains("\r\nx-console: 1\r\n"), "{head}");
    }
    // The head alone says the same, and is followed by nothing.
    let (mut client, mut server, _) = stage.ask("HEAD", "1.1", "Connection: close\r\n").await;
    server.send(format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 11\r\n\r\n")).await;
    let head = client.head().await.to_lowercase();
    assert!(head.starts_with("http/1.1 200 ") && !head.contains("content-length") && !head.contains("etag"), "{head}");
    assert!(client.rest().await.is_empty());
    drop(server);
    // What is no whole page to be shown passes as it is, its length and validators with it.
    let gzip = "Content-Encoding: gzip\r\n";
    let part = "Content-Range: bytes 0-10/99\r\n";
    let file = "Content-Disposition: attachment; filename=a.html\r\n";
    for (status, more) in [("200 OK", gzip), ("206 Partial Content", part), ("200 OK", file)] {
        let (mut client, mut server, _) = stage.ask("GET", "1.1", "").await;
        server.send(answer(status, &format!("{fields}{more}"), page)).await;
        let shown = client.answer().await;
        let head = shown.head.to_lowercase();
        assert_eq!(shown.text(), page, "{more}");
        assert!(head.contains("\r\ncontent-length: 11\r\n") && head.contains("\r\netag: \"x\"\r\n"), "{head}");
        assert!(head.contains("\r\ncache-control: no-store\r\n"), "{head}");
    }
    // A console that answers by validators nobody sent.
    let (mut client, mut server, _) = stage.ask("GET", "1.1", "Connection: close\r\n").await;
    server.send("HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n").await;
    assert!(client.head().await.starts_with("HTTP/1.1 304 ") && client.rest().await.is_empty());
    stage.end().await;
}

#[tokio::test]
async fn a_page_is_not_kept_waiting_and_one_that_breaks_off_is_not_made_whole() {
    let stage = Stage::set().await;
    let (mut client, mut server, _) = stage.ask("GET", "1.1", "").await;
    server.send("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    client.head().await;
    let expected = format!("<a href=/a?_sk={}>", stage.sk);
    for (sent, shown) in [("<html><p>first", "<html><p>first"), ("<a href=/a>", &expected), ("<a hr", ""), ("x", "")] {
        server.send(format!("{:x}\r\n{sent}\r\n", sent.len())).await;
        if !shown.is_empty() {
            let chunk = format!("{:X}\r\n{shown}\r\n", shown.len());
            assert_eq!(String::from_utf8(client.exactly(chunk.len()).await).unwrap(), chunk);
        }
    }
    drop(server);
    let rest = String::from_utf8(client.rest().await).unwrap();
    assert!(!rest.contains("0\r\n\r\n"), "{rest}");
    stage.end().await;
}

/// Tags and attributes of megabytes, a hundred thousand levels, a comment without end: the page arrives.
#[tokio::test]
async fn a_hostile_page_arrives_whole() {
    let mut handset;
    let harness = Harness::start().await;
    let long = "x".repeat(10 * 1024 * 1024);
    let pages = [
        format!("<a href=/a><p title=\"{long}\"><a href=/b>"),
        format!("<a href=/a><a href=\"/{long}\">"),
        format!("<a href=/a>{}", "<div><form>".repeat(100_000)),
        format!("<a href=/a><!--{long}"),
        format!("<a href=/a><{long}"),
        format!("<a href=/a><a {}>", "x='>' ".repeat(1_000_000)),
    ];
    handset = Cookieless::new(&harness, Carrier::SoftBank, "a");
    let url = handset.enrol(&harness, "/", "alice").await;
    let sk = token(&url);
    for page in pages {
        let sent = page.clone();
        harness.upstream.answer(move |_| {
            let answer = http::Response::builder().header("content-type", "text/html; charset=Shift_JIS");
            answer.body(http_body_util::Full::new(sent.clone().into())).unwrap()
        });
        let shown = handset.get(&url).await;
        assert_eq!(shown.status, StatusCode::OK);
        let shown = String::from_utf8(shown.body.to_vec()).unwrap();
        let field = format!("<input type=\"hidden\" name=\"_sk\" value=\"{sk}\">");
        let without = shown.replace(&field, "").replace(&format!("?_sk={sk}"), "");
        assert!(shown.starts_with(&format!("<a href=/a?_sk={sk}>")) && without == page, "{}", &page[..40]);
    }
    harness.finish_without(&[&sk]).await;
}
