//! A line of the access stream in the Common Log Format, which log analysers read:
//! `client - - [24/Nov/2026:14:21:57 +0000] "GET /orders HTTP/1.1" 200 -`.
//!
//! As Apache's `mod_log_config` writes it: what could end the quoted part or is not printable ASCII is escaped. The user is
//! never told, and the length is not known yet when the head of an answer is.

use std::io::Write as _;

use http::Version;

use super::client::ShownClient;
use super::json::number;

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// What is told of one request, bounded and cut already.
pub(super) struct Told<'a> {
    /// RFC 3339, in UTC.
    pub(super) time: &'a str,
    /// As much as may be told.
    pub(super) client: Option<ShownClient>,
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) version: Version,
    pub(super) status: u16,
}

/// Adds the line, its end included, to `line`.
pub(super) fn write(line: &mut Vec<u8>, told: &Told<'_>) {
    match told.client {
        Some(client) => client.write(line),
        None => line.push(b'-'),
    }
    line.extend_from_slice(b" - - [");
    date(line, told.time);
    line.extend_from_slice(b" +0000] \"");
    escaped(line, told.method);
    line.push(b' ');
    escaped(line, told.path);
    let version = if told.version == Version::HTTP_2 { "HTTP/2.0" } else { "HTTP/1.1" };
    let version = if told.version == Version::HTTP_10 { "HTTP/1.0" } else { version };
    line.push(b' ');
    line.extend_from_slice(version.as_bytes());
    line.extend_from_slice(b"\" ");
    number(line, told.status.into());
    line.extend_from_slice(b" -\n");
}

/// `2026-11-24T14:21:57…` as `24/Nov/2026:14:21:57`; a time that no calendar has stays as it is.
fn date(line: &mut Vec<u8>, time: &str) {
    let part = |from, to| time.get(from..to);
    let month =
        part(5, 7).and_then(|month| month.parse::<usize>().ok()).and_then(|month| MONTHS.get(month.checked_sub(1)?));
    match (part(8, 10), month, part(0, 4), part(11, 19)) {
        (Some(day), Some(month), Some(year), Some(clock)) => {
            for part in [day, "/", month, "/", year, ":", clock] {
                line.extend_from_slice(part.as_bytes());
            }
        }
        _ => escaped(line, time),
    }
}

fn escaped(line: &mut Vec<u8>, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => line.extend_from_slice(&[b'\\', byte]),
            b' '..=b'~' => line.push(byte),
            // A Vec takes every write.
            _ => drop(write!(line, "\\x{byte:02x}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(told: &Told<'_>) -> String {
        let mut line = Vec::new();
        write(&mut line, told);
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn lines_are_as_log_analysers_read_them() {
        let mut told = Told {
            time: "2026-11-24T14:21:57.042Z",
            client: Some(ShownClient::Network("127.0.2.0/24".parse().unwrap())),
            method: "GET",
            path: "/orders",
            version: Version::HTTP_11,
            status: 200,
        };
        assert_eq!(line(&told), "127.0.2.0/24 - - [24/Nov/2026:14:21:57 +0000] \"GET /orders HTTP/1.1\" 200 -\n");
        told.client = None;
        told.version = Version::HTTP_2;
        told.path = "/a\"b\\c\n\u{3042}";
        let wanted = "- - - [24/Nov/2026:14:21:57 +0000] \"GET /a\\\"b\\\\c\\x0a\\xe3\\x81\\x82 HTTP/2.0\" 200 -\n";
        assert_eq!(line(&told), wanted);
        told.time = "@-99999999999999";
        assert!(line(&told).starts_with("- - - [@-99999999999999 +0000]"));
    }
}
