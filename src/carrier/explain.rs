//! The offline tools: real traffic in, decisions out, by the very functions of the listener.

use std::borrow::Cow;
use std::io::{self, BufRead, Read, Write};
use std::net::IpAddr;

use http::request::Parts;
use http::{HeaderName, HeaderValue, Request, Uri};
use ring::hmac;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::identifier::RawIdentifier;
use super::identify::Carriers;
use super::reserved::ReservedFields;
use super::user_agent::{UserAgent, UserAgentKind};
use crate::edge::{HeadError, HeadLimits, HostAllowList, RawHead, Scheme, TrustedProxies};
use crate::refusal::Reason;

/// Bounds of a head: the defaults of `[limits]`.
const LIMITS: HeadLimits = HeadLimits { head_bytes: 32 * 1024, headers: 100, url_bytes: 8 * 1024 };

/// Bytes of an input line; a longer one is refused unread.
const MAX_LINE: u64 = 1024 * 1024;

/// The stages from a head to an identifier, in their order.
///
/// # Errors
/// The one reason why there is no identifier.
pub fn identify_request(
    parts: Parts,
    peer: IpAddr,
    connection: Scheme,
    limits: &HeadLimits,
    hosts: &HostAllowList,
    proxies: &TrustedProxies,
    carriers: &Carriers,
) -> Result<RawIdentifier, Reason> {
    hosts.check_parts(&parts).map_err(head_reason)?;
    let head = RawHead::read(parts, limits).map_err(head_reason)?;
    let client = proxies.resolve(peer, connection, &head).map_err(|_| Reason::UnknownSourceAddress)?;
    Ok(carriers.identify(&head, &client)?)
}

/// `sekisho carriers explain`: one request a line as JSON, one decision a line as JSON.
///
/// A fingerprint is HMAC-SHA256(key, identifier), given only with a key. A line that is no request gets an `error`,
/// which does not repeat it, and the next line is read.
///
/// # Errors
/// Where `input` cannot be read or `output` cannot be written.
pub fn explain_lines(
    carriers: &Carriers,
    hosts: &HostAllowList,
    proxies: &TrustedProxies,
    fingerprint_key: Option<&[u8]>,
    input: impl BufRead,
    mut output: impl Write,
) -> io::Result<()> {
    let key = fingerprint_key.map(|key| hmac::Key::new(hmac::HMAC_SHA256, key));
    for_each_line(input, |line| {
        let request =
            line.and_then(|line| serde_json::from_slice::<RequestLine<'_>>(line).map_err(|e| not_a_request(&e)));
        let answer = match &request {
            Err(error) => Answer::Error { error: error.clone() },
            Ok(request) => explain(carriers, hosts, proxies, key.as_ref(), request),
        };
        write_line(&mut output, &answer)
    })
}

/// `sekisho carriers user-agent`: one User-Agent a line, what it says of itself a line as JSON; never a serial.
///
/// # Errors
/// Where `input` cannot be read or `output` cannot be written.
pub fn user_agent_lines(input: impl BufRead, mut output: impl Write) -> io::Result<()> {
    for_each_line(input, |line| match line {
        Err(error) => write_line(&mut output, &Answer::Error { error }),
        Ok(line) => write_line(&mut output, &UserAgentLine::from(&UserAgent::parse(&String::from_utf8_lossy(line)))),
    })
}

/// A request of `explain`, as in `tests/data/ident-cases.json`.
#[derive(Deserialize)]
struct RequestLine<'l> {
    remote_ip: IpAddr,
    #[serde(borrow)]
    scheme: Cow<'l, str>,
    #[serde(borrow)]
    method: Cow<'l, str>,
    #[serde(borrow)]
    target: Cow<'l, str>,
    #[serde(borrow)]
    headers: Vec<(Cow<'l, str>, Cow<'l, str>)>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Answer<'a> {
    Decision {
        outcome: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        carrier: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<&'static str>,
        must_not_forward: Vec<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        fingerprint: Option<String>,
    },
    Error {
        error: Cow<'static, str>,
    },
}

#[derive(Serialize)]
struct UserAgentLine<'a> {
    carrier: &'a str,
    kind: UserAgentKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    browser: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cookies: Option<bool>,
    redacted: &'a str,
}

impl<'a> From<&'a UserAgent> for UserAgentLine<'a> {
    fn from(agent: &'a UserAgent) -> Self {
        Self {
            carrier: agent.carrier.unwrap_or("none"),
            kind: agent.kind,
            model: agent.model.as_deref(),
            generation: agent.generation,
            browser: agent.browser,
            cookies: agent.cookies,
            redacted: &agent.redacted,
        }
    }
}

fn explain<'r>(
    carriers: &Carriers,
    hosts: &HostAllowList,
    proxies: &TrustedProxies,
    key: Option<&hmac::Key>,
    request: &'r RequestLine<'_>,
) -> Answer<'r> {
    let connection = match &*request.scheme {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        _ => return Answer::Error { error: "scheme is neither http nor https".into() },
    };
    let decided = parts_of(request)
        .and_then(|parts| identify_request(parts, request.remote_ip, connection, &LIMITS, hosts, proxies, carriers));
    let must_not_forward = must_not_forward(carriers.reserved(), request.headers.iter().map(|(name, _)| &**name));
    match decided {
        Ok(identifier) => Answer::Decision {
            outcome: "identified",
            carrier: Some(identifier.carrier().to_string()),
            reason: None,
            must_not_forward,
            fingerprint: key.map(|key| hex(hmac::sign(key, identifier.expose()).as_ref())),
        },
        Err(reason) => Answer::Decision {
            outcome: "refused",
            carrier: None,
            reason: Some(reason.as_str()),
            must_not_forward,
            fingerprint: None,
        },
    }
}

/// The head as the HTTP codec would hand it over; what the codec would not accept is a malformed request.
fn parts_of(request: &RequestLine<'_>) -> Result<Parts, Reason> {
    let target: Uri = request.target.parse().map_err(|_| Reason::MalformedRequest)?;
    let mut builder = Request::builder().method(&*request.method).uri(target);
    for (name, value) in &request.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| Reason::MalformedRequest)?;
        // The codec drops white space around a value (RFC 9110 §5.5).
        let value = HeaderValue::from_bytes(value.trim_matches([' ', '\t']).as_bytes());
        builder = builder.header(name, value.map_err(|_| Reason::MalformedRequest)?);
    }
    builder.body(()).map(|request| request.into_parts().0).map_err(|_| Reason::MalformedRequest)
}

/// The reserved fields among these, each spelling once, in order.
fn must_not_forward<'n>(reserved: &ReservedFields, names: impl Iterator<Item = &'n str>) -> Vec<&'n str> {
    let mut kept = Vec::new();
    for name in names.filter(|name| reserved.holds(name)) {
        if !kept.contains(&name) {
            kept.push(name);
        }
    }
    kept
}

fn head_reason(error: HeadError) -> Reason {
    match error {
        HeadError::TooLarge => Reason::HeadTooLarge,
        HeadError::UrlTooLong => Reason::UrlTooLong,
        HeadError::Malformed => Reason::MalformedRequest,
        HeadError::HostNotAllowed => Reason::HostNotAllowed,
    }
}

/// Says where, but nothing of what stands there: serde's own message quotes it.
fn not_a_request(error: &serde_json::Error) -> Cow<'static, str> {
    let what = if error.is_data() { "not a request object" } else { "not JSON" };
    format!("{what}, at byte {}", error.column()).into()
}

/// Calls `answer` with each line, without its end, or with what is wrong with the line.
fn for_each_line(
    mut input: impl BufRead,
    mut answer: impl FnMut(Result<&[u8], Cow<'static, str>>) -> io::Result<()>,
) -> io::Result<()> {
    let mut line = Zeroizing::new(Vec::new());
    loop {
        line.clear();
        if input.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        if line.len() as u64 == MAX_LINE && !line.ends_with(b"\n") {
            input.skip_until(b'\n')?;
            answer(Err("longer than 1 MiB".into()))?;
            continue;
        }
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        answer(Ok(text.strip_suffix(b"\r").unwrap_or(text)))?;
    }
}

fn write_line(output: &mut impl Write, answer: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *output, answer)?;
    output.write_all(b"\n")
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
