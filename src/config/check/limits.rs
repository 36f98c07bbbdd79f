//! `[limits]`.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::values::Context;
use crate::config::duration::Rate;
use crate::config::raw::{self, Table};
use crate::config::types::{ClientTimeouts, LimitsConfig};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// What a request body may be limited to, in bytes.
pub(super) const BODY: RangeInclusive<u64> = KIB..=64 * 1024 * MIB;
const MOST_CONNECTIONS: u32 = 10_000_000;

pub(super) fn check(raw: Option<Table<raw::Limits>>, cx: &mut Context) -> LimitsConfig {
    let Table(raw) = raw.unwrap_or_default();
    let a_minute = |count| Rate { count, period: Duration::from_mins(1) };
    let head = cx.size("limits.head", raw.head.as_deref(), 32 * KIB, KIB..=MIB);
    let url = cx.size("limits.url", raw.url.as_deref(), 8 * KIB, 256..=64 * KIB);
    if url > head && !cx.report.names("limits.url") && !cx.report.names("limits.head") {
        let key = if raw.url.is_some() { "limits.url" } else { "limits.head" };
        cx.report.error(key, "url must not be larger than head: the request line is part of the head");
    }
    let connections =
        raw.connections.map(|_| cx.number("limits.connections", raw.connections, 1, 1..=MOST_CONNECTIONS));
    let per_address_key = "limits.connections_per_address";
    let connections_per_address = cx.number(per_address_key, raw.connections_per_address, 256, 1..=MOST_CONNECTIONS);
    if raw.connections_per_address.is_some()
        && connections.is_some_and(|all| all < connections_per_address)
        && !cx.report.names("limits.connections")
        && !cx.report.names(per_address_key)
    {
        cx.report.error(per_address_key, "must not be more than limits.connections, which counts them too");
    }
    LimitsConfig {
        sign_in: cx.rate("limits.sign_in", raw.sign_in.as_deref(), a_minute(10)),
        code: cx.rate("limits.code", raw.code.as_deref(), Rate { count: 10, period: Duration::from_hours(1) }),
        pin: cx.rate("limits.pin", raw.pin.as_deref(), a_minute(10)),
        network: cx.rate("limits.network", raw.network.as_deref(), a_minute(100)),
        head_bytes: usize::try_from(head).unwrap_or(usize::MAX),
        headers: usize::try_from(cx.number("limits.headers", raw.headers, 100, 10..=1000)).unwrap_or(100),
        body_bytes: cx.size("limits.body", raw.body.as_deref(), 16 * MIB, BODY),
        url_bytes: usize::try_from(url).unwrap_or(usize::MAX),
        connections,
        connections_per_address,
        requests: raw.requests.map(|written| cx.rate("limits.requests", Some(&written), a_minute(1))),
        timeouts: timeouts(raw.timeouts, cx),
    }
}

fn timeouts(raw: Option<Table<raw::Timeouts>>, cx: &mut Context) -> ClientTimeouts {
    let Table(raw) = raw.unwrap_or_default();
    let mut timeout = |name: &str, written: Option<String>, default| {
        let (least, most) = (Duration::from_millis(10), Duration::from_hours(1));
        cx.duration(&format!("limits.timeouts.{name}"), written.as_deref(), Duration::from_secs(default), least..=most)
    };
    ClientTimeouts {
        handshake: timeout("handshake", raw.handshake, 10),
        head: timeout("head", raw.head, 15),
        body_idle: timeout("body_idle", raw.body_idle, 30),
        write_idle: timeout("write_idle", raw.write_idle, 30),
        keep_alive: timeout("keep_alive", raw.keep_alive, 75),
    }
}
