//! `[carriers.*]`: text for `carrier` to judge.

use std::collections::BTreeMap;

use super::values::Context;
use crate::carrier::{Networks, ProfileSpec, RequiredQuery};
use crate::config::document::join;
use crate::config::raw::{self, Or, Table};
use crate::config::types::CarrierSpecs;

/// Stands for every browser generation.
const ALL: &str = "all";

pub(super) fn check(raw: Option<BTreeMap<String, Table<raw::Carrier>>>, cx: &mut Context) -> CarrierSpecs {
    let specs: CarrierSpecs =
        raw.unwrap_or_default().into_iter().map(|(name, Table(raw))| (name.clone(), one(&name, raw, cx))).collect();
    let enabled = specs.values().any(|spec| match &spec.networks {
        Some(Networks::Reference) => true,
        Some(Networks::List(list)) => !list.is_empty(),
        None => false,
    });
    if !enabled && !cx.report.names("carriers") {
        cx.report.warning(
            "carriers",
            "no handset can sign in: no carrier has networks; write [carriers.NAME] with networks = [\"…\"]",
        );
    }
    specs
}

fn one(name: &str, raw: raw::Carrier, cx: &mut Context) -> ProfileSpec {
    let key = join("carriers", name);
    let require_query = raw.require_query.and_then(|Table(query)| {
        let (Some(name), Some(value)) = (query.name, query.value) else {
            cx.report.missing(
                &format!("{key}.require_query"),
                "must have name and value, such as name = \"guid\", value = \"ON\"",
            );
            return None;
        };
        Some(RequiredQuery { name, value, ignore_case: query.ignore_case.unwrap_or(false) })
    });
    let networks = raw.networks.and_then(|networks| match networks {
        Or::Long(list) => Some(Networks::List(list)),
        Or::Short(word) if word == "reference" => Some(Networks::Reference),
        Or::Short(_) => {
            cx.report.error(&format!("{key}.networks"), "must be a list such as [\"10.64.0.0/16\"], or \"reference\"");
            None
        }
    });
    ProfileSpec {
        header: raw.header,
        grammar: raw.grammar,
        identifier_parts: raw.identifier_parts,
        refuse_parts: raw.refuse_parts,
        require_query,
        user_agent: raw.user_agent,
        over_tls: raw.over_tls,
        networks,
        cookies: raw.cookies.map(for_every_generation),
        charset: raw.charset.map(for_every_generation),
    }
}

fn for_every_generation<T>(written: Or<T, BTreeMap<String, T>>) -> BTreeMap<String, T> {
    match written {
        Or::Short(value) => BTreeMap::from([(ALL.to_owned(), value)]),
        Or::Long(generations) => generations,
    }
}
