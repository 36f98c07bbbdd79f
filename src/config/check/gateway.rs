//! `[gateway]`.

use ipnet::IpNet;

use super::values::Context;
use crate::config::origin::{Origin, is_host};
use crate::config::raw::{self, Table};
use crate::config::types::GatewayConfig;
use crate::edge::{HostAllowList, TrustedProxies};

pub(super) fn check(raw: Option<Table<raw::Gateway>>, cx: &mut Context) -> Option<GatewayConfig> {
    let Some(Table(raw)) = raw else {
        cx.report.missing("gateway", "is missing; write [gateway] with public_url = \"https://…\", what handsets type");
        return None;
    };
    let Some(written) = raw.public_url.as_deref() else {
        cx.report.missing(
            "gateway.public_url",
            "is missing; write what handsets type, such as \"https://admin.example.jp\"",
        );
        // The rest of the section is judged all the same.
        let _ = (hosts(raw.hosts.as_deref(), cx), trusted_proxies(raw.trusted_proxies.as_deref(), cx));
        return None;
    };
    let public_url = cx.read("gateway.public_url", Some(written), Origin::parse);
    let plain_url = cx.read("gateway.plain_url", raw.plain_url.as_deref(), Origin::parse);
    let hosts = hosts(raw.hosts.as_deref(), cx);
    let trusted_proxies = trusted_proxies(raw.trusted_proxies.as_deref(), cx);
    let public_url = public_url?;

    if !public_url.https {
        cx.report.warning(
            "gateway.public_url",
            "is not https, and it is the issuer of assertions; sessions can be read on the way unless the network is private",
        );
    }
    let hosts_written_well = !cx.report.names("gateway.hosts");
    let hosts = HostAllowList::new(hosts.unwrap_or_else(|| vec![public_url.host.clone()]));
    if hosts_written_well && !hosts.allows(&public_url.host) {
        cx.report.error("gateway.hosts", format_args!("must hold the host of public_url, {:?}", public_url.host));
    }
    if let Some(plain_url) = &plain_url {
        if plain_url.https {
            cx.report.error("gateway.plain_url", "must be http: it is where the plain listener is seen from outside");
        }
        if hosts_written_well && !hosts.allows(&plain_url.host) {
            let problem = format!("its host must be in gateway.hosts; add {:?} there", plain_url.host);
            cx.report.error("gateway.plain_url", problem);
        }
    }
    let plain_url = plain_url.unwrap_or_else(|| {
        let port = if public_url.https { None } else { public_url.port };
        Origin { https: false, host: public_url.host.clone(), port }
    });
    Some(GatewayConfig { public_url, plain_url, hosts, trusted_proxies: TrustedProxies::new(trusted_proxies) })
}

fn hosts(written: Option<&[String]>, cx: &mut Context) -> Option<Vec<String>> {
    let written = written?;
    if written.is_empty() {
        cx.report.error("gateway.hosts", "must hold at least one name; leave it out for public_url's host");
    }
    for (index, host) in written.iter().enumerate() {
        let name = host.strip_suffix('.').unwrap_or(host);
        if !is_host(name) {
            let problem = "must be a DNS name or an address (IPv6 in brackets), without scheme, port or wildcard";
            cx.report.error(&format!("gateway.hosts[{index}]"), problem);
        }
    }
    Some(written.to_vec())
}

fn trusted_proxies(written: Option<&[String]>, cx: &mut Context) -> Vec<IpNet> {
    let read = |text: &str| {
        let network = text.parse::<IpNet>().or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from));
        match network {
            Ok(network) if network.prefix_len() == 0 => {
                Err("would believe everybody; name your proxies' own addresses")
            }
            Ok(network) => Ok(network.trunc()),
            Err(_) => Err("must be an address or a network such as \"192.0.2.10\" or \"10.0.0.0/24\""),
        }
    };
    let entries = written.unwrap_or_default().iter().enumerate();
    entries
        .filter_map(|(index, text)| cx.read(&format!("gateway.trusted_proxies[{index}]"), Some(text), read))
        .collect()
}
