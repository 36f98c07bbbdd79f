//! Which requests ask for a socket, as both listeners decide it: a handset's own, and a proxy's question about one.
//!
//! A browser sends a session's cookie with a handshake whichever page makes it, so `Origin` alone stands against a page
//! elsewhere (RFC 6455 §10.2).

use http::header::{HeaderName, SEC_WEBSOCKET_KEY, UPGRADE};

use super::Gateway;
use crate::edge::RawHead;

const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

impl Gateway {
    /// Whether another site's page asks for a socket.
    pub(super) fn is_foreign_handshake(&self, head: &RawHead) -> bool {
        // Few requests name their origin.
        self.has_foreign_origin(head) && is_handshake(head)
    }
}

/// Whether a request asks for a socket, as far as anybody tells. `Upgrade` is what a server switches by, to whatever
/// protocol; nginx keeps it from a question unless told otherwise, but passes the key on, and Traefik may say `wss` where it
/// passes neither.
fn is_handshake(head: &RawHead) -> bool {
    let is_there = |name: &HeaderName| head.all(name).next().is_some();
    head.all(&UPGRADE).any(|protocols| !protocols.as_bytes().trim_ascii().is_empty())
        || is_there(&SEC_WEBSOCKET_KEY)
        || head.all(&FORWARDED_PROTO).any(|schemes| is_socket(schemes.as_bytes()))
}

fn is_socket(schemes: &[u8]) -> bool {
    let names = [&b"ws"[..], b"wss"];
    schemes
        .split(|byte| *byte == b',')
        .any(|scheme| names.iter().any(|name| scheme.trim_ascii().eq_ignore_ascii_case(name)))
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::edge::HeadLimits;

    #[test]
    fn a_handshake_is_known_by_whatever_tells_of_it() {
        let limits = HeadLimits { head_bytes: 65_536, headers: 100, url_bytes: 1024 };
        for (name, value, expected) in [
            ("Upgrade", "websocket", true),
            ("Upgrade", "h2c", true),
            ("Upgrade", " ", false),
            ("Sec-WebSocket-Key", "x", true),
            ("X-Forwarded-Proto", "wss", true),
            ("X-Forwarded-Proto", "WS, https", true),
            ("X-Forwarded-Proto", "https", false),
            ("Connection", "keep-alive", false),
            ("Sec-Fetch-Mode", "cors", false),
        ] {
            let request = Request::get("/").header(name, value).body(()).unwrap();
            let head = RawHead::read(request.into_parts().0, &limits).unwrap();
            assert_eq!(is_handshake(&head), expected, "{name}: {value}");
        }
    }
}
