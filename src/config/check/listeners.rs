//! `[[listener]]`.

use std::net::SocketAddr;

use super::values::Context;
use crate::config::raw::{self, Table};
use crate::config::types::{GatewayConfig, ListenerConfig, ListenerTls, ServerCertificate, Serves};

pub(super) fn check(
    raw: Option<Vec<Table<raw::Listener>>>,
    gateway: Option<&GatewayConfig>,
    cx: &mut Context,
) -> Vec<ListenerConfig> {
    let raw = raw.unwrap_or_default();
    let serves_handsets = raw.iter().any(|Table(listener)| listener.serves == Some(raw::Serves::Handset));
    let mut listeners = Vec::new();
    let mut bound: Vec<(String, SocketAddr)> = Vec::new();
    for (index, Table(listener)) in raw.into_iter().enumerate() {
        let key = format!("listener[{index}]");
        let listener = one(&key, listener, cx);
        if let Some(address) = listener.as_ref().map(|(_, address)| *address) {
            let address_key = format!("{key}.address");
            if let Some((other, _)) = bound.iter().find(|(_, other)| overlap(*other, address)) {
                let line = cx.report.line(other);
                cx.report
                    .error(&address_key, format_args!("overlaps with {other} on line {line}; give it another port"));
            }
            bound.push((address_key, address));
        }
        listeners.extend(listener.and_then(|(config, _)| config));
    }

    for (index, _) in listeners.iter().enumerate().filter(|(_, listener)| listener.proxy_protocol) {
        if gateway.is_some_and(|gateway| gateway.trusted_proxies.is_empty()) {
            let problem = "nobody may send a PROXY header; name the proxy in gateway.trusted_proxies";
            cx.report.error(&format!("listener[{index}].proxy_protocol"), problem);
        }
    }
    for (index, _) in listeners.iter().enumerate().filter(|(_, listener)| listener.serves == Serves::ForwardAuth) {
        if gateway.is_some_and(|gateway| gateway.trusted_proxies.is_empty()) {
            let problem = "nobody may ask a forward-auth listener; name the proxy in gateway.trusted_proxies";
            cx.report.error(&format!("listener[{index}].serves"), problem);
        }
    }
    if !serves_handsets {
        let problem =
            "no listener serves handsets; write [[listener]] with serves = \"handset\" and address = \"0.0.0.0:8080\"";
        cx.report.missing("listener", problem);
    } else if let Some(gateway) = gateway.filter(|gateway| gateway.public_url.https && !cx.report.names("listener")) {
        let over_tls = listeners.iter().any(|l| l.serves == Serves::Handset && l.tls.is_some());
        if !over_tls && gateway.trusted_proxies.is_empty() && !cx.report.names("gateway.trusted_proxies") {
            cx.report.error(
                "gateway.public_url",
                "is https, but no handset listener has tls; give one tls = { certificate = \"…\", key = \"…\" }, or name the \
                 proxy that ends TLS in trusted_proxies",
            );
        }
    }
    listeners
}

/// Its address, and the whole of it if it says what it serves.
fn one(key: &str, raw: raw::Listener, cx: &mut Context) -> Option<(Option<ListenerConfig>, SocketAddr)> {
    let serves_key = format!("{key}.serves");
    let serves = match raw.serves {
        Some(raw::Serves::Handset) => Some(Serves::Handset),
        Some(raw::Serves::Ops) => Some(Serves::Ops),
        Some(raw::Serves::ForwardAuth) => Some(Serves::ForwardAuth),
        Some(raw::Serves::Admin) => Some(Serves::Admin),
        None => {
            cx.report.missing(&serves_key, "is missing; write \"handset\", \"ops\", \"forward-auth\" or \"admin\"");
            None
        }
    };
    let address_key = format!("{key}.address");
    if raw.address.is_none() {
        cx.report.missing(&address_key, "is missing; write an address and a port, such as \"0.0.0.0:8080\"");
    }
    let address = cx.read(&address_key, raw.address.as_deref(), |text| {
        text.parse::<SocketAddr>()
            .map_err(|_| "must be an address and a port, such as \"0.0.0.0:8080\" or \"[::]:8080\"")
    });
    let tls_key = format!("{key}.tls");
    let tls_written = raw.tls.as_ref().map(|Table(tls)| tls.client_ca.is_some());
    let tls = raw.tls.and_then(|Table(tls)| one_tls(&tls_key, tls, cx));
    if serves == Some(Serves::Admin) {
        admin(key, raw.proxy_protocol == Some(true), tls_written, cx);
    }
    let address = address?;
    let proxy_protocol = raw.proxy_protocol.unwrap_or(false);
    Some((serves.map(|serves| ListenerConfig { serves, address, tls, proxy_protocol }), address))
}

/// Nobody reaches the admin API over the network without a certificate that names them. `tls` says whether there is
/// one, and whether it has a `client_ca`.
fn admin(key: &str, proxy_protocol: bool, tls: Option<bool>, cx: &mut Context) {
    let (tls_key, ca_key) = (format!("{key}.tls"), format!("{key}.tls.client_ca"));
    match tls {
        None => cx.report.missing(
            &tls_key,
            "is missing; the admin API is served to client certificates alone: write tls = { certificate = \"…\", key = \"…\", \
             client_ca = \"…\" }, or remove this listener and administer over admin.socket",
        ),
        Some(false) => cx.report.missing(&ca_key, "is missing; name the PEM file of the authority that issues the administrators' certificates"),
        Some(true) => {}
    }
    if proxy_protocol {
        let problem = "an admin listener takes no PROXY header: who connects is known by certificate";
        cx.report.error(&format!("{key}.proxy_protocol"), problem);
    }
}

fn one_tls(key: &str, raw: raw::ListenerTls, cx: &mut Context) -> Option<ListenerTls> {
    let client_ca = cx.path(&format!("{key}.client_ca"), raw.client_ca.as_deref());
    let crl_key = format!("{key}.client_crl");
    let client_crl = cx.path(&crl_key, raw.client_crl.as_deref());
    if client_crl.is_some() && raw.client_ca.is_none() {
        cx.report.error(&crl_key, "revokes certificates that nobody is asked for; add client_ca");
    }
    let first = server_certificate(key, raw.certificate.as_deref(), raw.key.as_deref(), cx);
    let mut additional = Vec::new();
    for (index, Table(pair)) in raw.additional.unwrap_or_default().into_iter().enumerate() {
        let key = format!("{key}.additional[{index}]");
        additional.push(server_certificate(&key, pair.certificate.as_deref(), pair.key.as_deref(), cx));
    }
    let additional = additional.into_iter().collect::<Option<Vec<_>>>()?;
    Some(ListenerTls { first: first?, additional, client_ca, client_crl })
}

/// The two files that stand at `key`.
fn server_certificate(
    key: &str,
    certificate: Option<&str>,
    private_key: Option<&str>,
    cx: &mut Context,
) -> Option<ServerCertificate> {
    let mut file = |name: &str, written: Option<&str>, what: &str| {
        let key = format!("{key}.{name}");
        if written.is_none() {
            cx.report.missing(&key, format_args!("is missing; name the PEM file of {what}"));
        }
        cx.path(&key, written)
    };
    let certificate = file("certificate", certificate, "the certificate chain");
    let key = file("key", private_key, "the private key");
    Some(ServerCertificate { certificate: certificate?, key: key? })
}

/// Whether one address takes what the other wants. Whether `[::]` takes IPv4 too is the system's setting, so that
/// is left to binding.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let same_host =
        a.ip() == b.ip() || (a.is_ipv4() == b.is_ipv4() && (a.ip().is_unspecified() || b.ip().is_unspecified()));
    a.port() == b.port() && a.port() != 0 && same_host
}
