//! The PROXY header of a connection: who connected to the proxy in front of us (haproxy.org, proxy-protocol.txt, v1 and
//! v2). Believed from trusted peers only, and required of everybody on a listener that speaks it.
//!
//! Exactly the header's bytes are read, so what follows is TLS or HTTP untouched. The checksum of v2 is not judged: the
//! peer is trusted, and TCP has one of its own.

use std::io;
use std::net::SocketAddr;

use proxy_header::{ParseConfig, Protocol, ProxyHeader};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt};

/// What begins a v2 header (proxy-protocol.txt §2.2); no v1 header is as short.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// What begins a v1 header.
const V1: &[u8] = b"PROXY ";
/// Version 2, and a connection of the proxy's own.
const LOCAL: u8 = 0x20;
/// A v1 header is at most this long (§2.1).
const LONGEST_V1: usize = 107;
/// Bytes of addresses and extensions that are read of a v2 header, which may announce 64 KiB.
const LONGEST_V2: usize = 4096;

/// What the proxy says of the connection that it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proxied {
    /// Who connected to it; `None` if it connects for itself, as a health check does.
    pub source: Option<SocketAddr>,
    /// Whether it says that it ended TLS.
    pub over_tls: bool,
}

/// There is no PROXY header that could be used.
#[derive(Debug, Error)]
pub enum ProxyHeaderError {
    /// It is none, or breaks its grammar.
    #[error("no PROXY header, or a broken one")]
    Malformed,
    /// It is longer than any that is needed.
    #[error("the PROXY header is too long")]
    TooLong,
    /// The peer is none of `gateway.trusted_proxies`.
    #[error("the peer is none of gateway.trusted_proxies")]
    Untrusted,
    /// The connection ended or failed before its end.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Reads the header off a connection and not a byte more. The caller bounds the time.
///
/// # Errors
/// [`ProxyHeaderError`]; the connection is of no use then.
pub(super) async fn read<T: AsyncRead + Unpin>(stream: &mut T) -> Result<Proxied, ProxyHeaderError> {
    let mut bytes = vec![0; SIGNATURE.len()];
    stream.read_exact(&mut bytes).await?;
    if bytes == SIGNATURE {
        let mut rest = [0; 4];
        stream.read_exact(&mut rest).await?;
        let [_, _, high, low] = rest;
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length > LONGEST_V2 {
            return Err(ProxyHeaderError::TooLong);
        }
        bytes.extend_from_slice(&rest);
        let begun = bytes.len();
        bytes.resize(begun + length, 0);
        stream.read_exact(bytes.get_mut(begun..).unwrap_or_default()).await?;
    } else {
        if !bytes.starts_with(V1) {
            return Err(ProxyHeaderError::Malformed);
        }
        while bytes.last() != Some(&b'\n') {
            if bytes.len() >= LONGEST_V1 {
                return Err(ProxyHeaderError::TooLong);
            }
            bytes.push(stream.read_u8().await?);
        }
    }
    parse(&bytes)
}

/// What a whole header says.
///
/// # Errors
/// [`ProxyHeaderError::Malformed`], also for one of datagrams, and where something follows the header.
pub fn parse(bytes: &[u8]) -> Result<Proxied, ProxyHeaderError> {
    // The parser takes anything for the space, and anything for what ends the word UNKNOWN.
    let spelled = match bytes.strip_prefix(V1) {
        Some(rest) => rest.strip_prefix(b"UNKNOWN").is_none_or(|rest| rest.starts_with(b" ") || rest == b"\r\n"),
        None => bytes.starts_with(SIGNATURE),
    };
    if !spelled {
        return Err(ProxyHeaderError::Malformed);
    }
    // Whatever a proxy writes of its own connection is to be ignored, family and addresses too (§2.2).
    if let Some([LOCAL, _, high, low, rest @ ..]) = bytes.strip_prefix(SIGNATURE)
        && usize::from(u16::from_be_bytes([*high, *low])) == rest.len()
    {
        return Ok(Proxied { source: None, over_tls: false });
    }
    let (header, used) = ProxyHeader::parse(bytes, ParseConfig::default()).map_err(|_| ProxyHeaderError::Malformed)?;
    if used != bytes.len() || header.tlvs().any(|extension| extension.is_err()) {
        return Err(ProxyHeaderError::Malformed);
    }
    let source = match header.proxied_address() {
        None => None,
        Some(address) if address.protocol == Protocol::Stream => Some(address.source),
        Some(_) => return Err(ProxyHeaderError::Malformed),
    };
    Ok(Proxied { source, over_tls: header.ssl().is_some_and(|ssl| ssl.client_ssl()) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A v2 header: version and command, family, addresses and extensions.
    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [SIGNATURE.as_slice(), &[command, family], &length, rest].concat()
    }

    const ADDRESSES: [u8; 12] = [127, 0, 1, 7, 127, 0, 0, 1, 0x15, 0xb3, 0, 80];

    async fn read_all(bytes: &[u8]) -> (Result<Proxied, ProxyHeaderError>, Vec<u8>) {
        let mut stream = bytes;
        let read = read(&mut stream).await;
        (read, stream.to_vec())
    }

    #[tokio::test]
    async fn a_header_is_read_and_nothing_of_what_follows() {
        let source: Option<SocketAddr> = Some("127.0.1.7:5555".parse().unwrap());
        let tls = [ADDRESSES.as_slice(), &[0x20, 0, 5, 1, 0, 0, 0, 0]].concat();
        let no_tls = [ADDRESSES.as_slice(), &[0x20, 0, 5, 0, 0, 0, 0, 0]].concat();
        let v6 = "[2001:db8::7]:5555".parse().unwrap();
        for (header, source, over_tls) in [
            (b"PROXY TCP4 127.0.1.7 127.0.0.1 5555 80\r\n".to_vec(), source, false),
            (b"PROXY TCP6 2001:db8::7 2001:db8::1 5555 80\r\n".to_vec(), Some(v6), false),
            (b"PROXY UNKNOWN\r\n".to_vec(), None, false),
            (v2(0x21, 0x11, &ADDRESSES), source, false),
            (v2(0x21, 0x11, &tls), source, true),
            (v2(0x21, 0x11, &no_tls), source, false),
            (v2(0x20, 0x00, &[]), None, false),
            (v2(0x20, 0x11, &ADDRESSES), None, false),
            (v2(0x20, 0x11, &[]), None, false),
        ] {
            let whole = [header.as_slice(), b"GET / HTTP/1.1\r\n"].concat();
            let (read, rest) = read_all(&whole).await;
            assert_eq!(read.unwrap(), Proxied { source, over_tls }, "{header:?}");
            assert_eq!(rest, b"GET / HTTP/1.1\r\n", "{header:?}");
            let (cut, _) = read_all(&header[..header.len() - 1]).await;
            assert!(cut.is_err(), "{header:?}");
        }
    }

    #[tokio::test]
    async fn what_is_no_header_of_a_connection_is_refused() {
        let long = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 200], b"\r\n"].concat();
        for bytes in [
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00".to_vec(),
            b"proxy TCP4 127.0.1.7 127.0.0.1 5555 80\r\n".to_vec(),
            b"PROXY TCP4 127.0.1.7 127.0.0.1 5555 80\n".to_vec(),
            b"PROXY\xa5UNKNOWN\r\n".to_vec(),
            b"PROXY TCP4 127.0.1.7, 127.0.2.7 127.0.0.1 5555 80\r\n".to_vec(),
            b"PROXY TCP4 2001:db8::7 2001:db8::1 5555 80\r\n".to_vec(),
            b"PROXY TCP4 127.0.1.7 127.0.0.1 99999 80\r\n".to_vec(),
            b"PROXY UNKNOWNX\r\n".to_vec(),
            b"PROXY UDP4 127.0.1.7 127.0.0.1 5555 80\r\n".to_vec(),
            long,
            v2(0x21, 0x12, &ADDRESSES),
            v2(0x11, 0x11, &ADDRESSES),
            v2(0x2f, 0x11, &ADDRESSES),
            v2(0x21, 0x11, &ADDRESSES[..11]),
            v2(0x21, 0x11, &[ADDRESSES.as_slice(), &[0x20, 0xff, 0xff]].concat()),
            v2(0x21, 0x11, &[0; LONGEST_V2 + 1]),
        ] {
            assert!(read_all(&bytes).await.0.is_err(), "{}", String::from_utf8_lossy(&bytes));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_are_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64), family in 0_u8..0x40) {
            let _ = parse(&bytes);
            let _ = parse(&v2(0x21, family, &bytes));
        }
    }
}
