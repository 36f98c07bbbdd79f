//! What an operator may write of a profile, and what the gateway says to it.

use std::collections::BTreeMap;

use sekisho::carrier::{Carriers, Charset, Networks, OverTls, ProfileSpec, RequiredQuery, UserAgent};

fn specs<const N: usize>(specs: [(&str, ProfileSpec); N]) -> BTreeMap<String, ProfileSpec> {
    specs.into_iter().map(|(name, spec)| (name.to_owned(), spec)).collect()
}

fn networks(list: &[&str]) -> Networks {
    Networks::List(list.iter().map(|net| (*net).to_owned()).collect())
}

/// A sound profile of the operator's own.
fn own() -> ProfileSpec {
    ProfileSpec {
        header: Some("X-Device-Ref".to_owned()),
        grammar: Some("^[A-Za-z0-9_-]{22,64}$".to_owned()),
        networks: Some(networks(&["10.64.0.0/16", "192.0.2.7", "2001:db8:64::/48"])),
        ..ProfileSpec::default()
    }
}

fn carriers<const N: usize>(list: [(&str, ProfileSpec); N]) -> Carriers {
    Carriers::build(&specs(list)).unwrap_or_else(|problems| panic!("{problems:?}")).0
}

/// `key: first words` of all problems of one profile.
fn problems(spec: ProfileSpec) -> Vec<String> {
    let found = Carriers::build(&specs([("own", spec)])).err().unwrap_or_default();
    found.into_iter().inspect(|p| assert_eq!(p.profile, "own")).map(|p| format!("{}: {}", p.key, p.problem)).collect()
}

#[track_caller]
fn assert_one_problem(spec: ProfileSpec, start: &str) {
    let found = problems(spec);
    assert!(matches!(found.as_slice(), [one] if one.starts_with(start)), "{found:?} is not {start:?}");
}

#[test]
fn built_in_profiles_are_off_until_they_have_networks() {
    let off = carriers([]);
    let names: Vec<_> = off.profiles().iter().map(|p| p.name().as_str()).collect();
    assert_eq!(names, ["acr", "au", "docomo", "emobile", "softbank", "willcom"]);
    assert!(off.profiles().iter().all(|p| !p.enabled() && p.over_tls() == OverTls::Refuse));

    let spec = ProfileSpec { networks: Some(networks(&["127.0.1.0/24"])), ..ProfileSpec::default() };
    let on = carriers([("docomo", spec)]);
    let enabled: Vec<_> = on.profiles().iter().filter(|p| p.enabled()).collect();
    assert_eq!(enabled.len(), 1);
    assert_eq!(enabled[0].display_name(), "docomo");
    assert_eq!(enabled[0].required_query(), Some(("guid", "ON")));
    assert_eq!(enabled[0].header().map(http::HeaderName::as_str), Some("x-dcmguid"));
    assert!(enabled[0].japanese() && enabled[0].small_identifier_space());
}

#[test]
fn reference_networks_come_with_a_warning_that_names_their_date() {
    for (name, year) in
        [("docomo", "2021"), ("au", "2019"), ("softbank", "2012"), ("emobile", "2011"), ("willcom", "2011")]
    {
        let spec = ProfileSpec { networks: Some(Networks::Reference), ..ProfileSpec::default() };
        let (carriers, warnings) = Carriers::build(&specs([(name, spec)])).ok().unwrap();
        assert!(carriers.profiles().iter().any(|p| p.name().as_str() == name && p.enabled()), "{name}");
        let [warning] = warnings.as_slice() else { panic!("{name}: {warnings:?}") };
        assert_eq!((warning.profile.as_str(), warning.key.as_str()), (name, "networks"));
        assert!(warning.problem.contains(year), "{warning:?}");
    }
    assert_one_problem(ProfileSpec { networks: Some(Networks::Reference), ..own() }, "networks: has no published list");
}

#[test]
fn an_own_profile_reads_any_browser_and_refuses_tls_unless_told_otherwise() {
    let (carriers, warnings) = Carriers::build(&specs([("own", own())])).ok().unwrap();
    assert_eq!(warnings, []);
    let profile = carriers.profiles().iter().find(|p| p.name().as_str() == "own").unwrap();
    assert_eq!((profile.over_tls(), profile.networks().len(), profile.japanese()), (OverTls::Refuse, 3, false));
    assert!(!profile.small_identifier_space());
    assert!(carriers.reserved().holds("x_device_ref"));
}

#[test]
fn an_overridden_header_leaves_the_built_in_one_reserved() {
    let spec = ProfileSpec { header: Some("X-Guid".to_owned()), ..ProfileSpec::default() };
    let carriers = carriers([("docomo", spec)]);
    assert!(carriers.reserved().holds("x-guid") && carriers.reserved().holds("x-dcmguid"));
}

#[test]
fn another_grammar_for_a_built_in_profile_answers_for_its_parts() {
    let spec = |identifier_parts, refuse_parts| ProfileSpec {
        grammar: Some("^[0-9a-f]{32}$".to_owned()),
        identifier_parts,
        refuse_parts,
        ..ProfileSpec::default()
    };
    let found = Carriers::build(&specs([("acr", spec(None, None))])).err().unwrap();
    let keys: Vec<_> = found.iter().map(|p| p.key.as_str()).collect();
    assert_eq!(keys, ["identifier_parts", "identifier_parts", "identifier_parts", "refuse_parts"]);
    assert!(Carriers::build(&specs([("acr", spec(Some(vec![]), Some(BTreeMap::new())))])).is_ok());
}

#[test]
fn a_field_known_for_telephone_numbers_is_doubted() {
    let spec = ProfileSpec { header: Some("X-MSISDN".to_owned()), ..own() };
    let (_, warnings) = Carriers::build(&specs([("own", spec)])).ok().unwrap();
    assert!(matches!(warnings.as_slice(), [one] if one.key == "header" && one.problem.contains("telephone-number")));
}

#[test]
fn all_problems_are_told_at_once() {
    let spec = ProfileSpec {
        user_agent: Some("netscape".to_owned()),
        over_tls: Some("maybe".to_owned()),
        ..ProfileSpec::default()
    };
    let keys: Vec<String> = problems(spec).iter().map(|p| p.split(':').next().unwrap().to_owned()).collect();
    assert_eq!(keys, ["header", "grammar", "networks", "user_agent", "over_tls"]);
    let spec = ProfileSpec { user_agent: Some("netscape".to_owned()), ..own() };
    let told = problems(spec).remove(0);
    assert!(told.ends_with("\"netscape\" is not known: choose any, au, docomo, emobile, softbank, willcom"), "{told}");
}

#[test]
fn each_key_is_judged() {
    let text = |text: &str| Some(text.to_owned());
    for header in ["Host", "X-Forwarded-For", "X_Forwarded_Host", "Cookie", "User-Agent", "Sekisho-Jwt-Assertion", "TE"]
    {
        assert_one_problem(ProfileSpec { header: text(header), ..own() }, "header: ");
    }
    assert_one_problem(ProfileSpec { header: text("X Device"), ..own() }, "header: \"X Device\" is no field name");
    assert_one_problem(ProfileSpec { grammar: text("[a-z]+"), ..own() }, "grammar: must match the whole value");
    assert_one_problem(ProfileSpec { grammar: text("^([a-z]+$"), ..own() }, "grammar: is not a regular expression");
    assert_one_problem(
        ProfileSpec { identifier_parts: Some(vec!["id".to_owned()]), ..own() },
        "identifier_parts: names \"id\"",
    );
    let refused = [("type".to_owned(), vec!["DYNM".to_owned()])].into();
    assert_one_problem(ProfileSpec { refuse_parts: Some(refused), ..own() }, "refuse_parts: names \"type\"");
    let query = RequiredQuery { name: "a&b".to_owned(), value: "1".to_owned(), ignore_case: false };
    assert_one_problem(ProfileSpec { require_query: Some(query), ..own() }, "require_query: ");
    for (network, start) in [
        ("10.64.0.0/33", "networks[0]: \"10.64.0.0/33\" is neither"),
        ("0.0.0.0/0", "networks[0]: 0.0.0.0/0 is the whole Internet"),
        ("::/0", "networks[0]: ::/0 is the whole Internet"),
        ("::ffff:0:0/96", "networks[0]: ::ffff:0:0/96 is the whole Internet"),
        ("::/64", "networks[0]: ::/64 is the whole Internet"),
    ] {
        assert_one_problem(ProfileSpec { networks: Some(networks(&[network])), ..own() }, start);
    }
    assert_one_problem(ProfileSpec { networks: Some(networks(&[])), ..own() }, "networks: is empty");
    let cookies = [("5g".to_owned(), true)].into();
    assert_one_problem(ProfileSpec { cookies: Some(cookies), ..own() }, "cookies.5g: is no browser generation");
    let charset = [("all".to_owned(), "latin1".to_owned())].into();
    assert_one_problem(ProfileSpec { charset: Some(charset), ..own() }, "charset.all: \"latin1\" is none of");

    let named = Carriers::build(&specs([("Own", own())])).err().unwrap();
    assert!(named[0].problem.starts_with("is no profile name"));
}

#[test]
fn two_profiles_share_no_address_and_no_confusable_field() {
    let other = ProfileSpec { networks: Some(networks(&["10.64.3.0/24", "10.64.9.1"])), ..own() };
    let found = Carriers::build(&specs([("one", own()), ("two", other)])).err().unwrap();
    assert_eq!(
        found.iter().map(|p| (p.profile.as_str(), p.key.as_str())).collect::<Vec<_>>(),
        [("two", "networks"); 2]
    );
    assert!(found[0].problem.starts_with("10.64.3.0/24 lies in 10.64.0.0/16 of one"), "{found:?}");

    let other =
        ProfileSpec { header: Some("X_Device_Ref".to_owned()), networks: Some(networks(&["192.0.2.9"])), ..own() };
    let found = Carriers::build(&specs([("one", own()), ("two", other)])).err().unwrap();
    assert_eq!((found.len(), found[0].key.as_str()), (1, "header"));

    let same_field = ProfileSpec { networks: Some(networks(&["192.0.2.9"])), ..own() };
    assert!(Carriers::build(&specs([("one", own()), ("two", same_field)])).is_ok());
}

#[test]
fn a_network_with_host_bits_is_read_as_its_network() {
    let spec = ProfileSpec { networks: Some(networks(&["10.64.7.1/16", "10.64.0.0/24"])), ..own() };
    let (carriers, warnings) = Carriers::build(&specs([("own", spec)])).ok().unwrap();
    let profile = carriers.profiles().iter().find(|p| p.enabled()).unwrap();
    assert_eq!(profile.networks(), ["10.64.0.0/16".parse().unwrap()]);
    assert_eq!(warnings[0].problem, "10.64.7.1/16 is read as 10.64.0.0/16");
}

#[test]
fn pages_follow_the_browser() {
    let told = [("imode-2.0".to_owned(), "EUC-JP".to_owned())].into();
    let overlaid = ProfileSpec { charset: Some(told), ..ProfileSpec::default() };
    let built_in = carriers([]);
    let every = ProfileSpec {
        charset: Some([("default".to_owned(), "euc-jp".to_owned())].into()),
        cookies: Some([("all".to_owned(), false)].into()),
        ..ProfileSpec::default()
    };
    let overlaid = carriers([("docomo", overlaid), ("au", every), ("own", own())]);
    let imode_1 = "DoCoMo/2.0 P903i(c100;TB;W24H12)";
    let imode_2 = "DoCoMo/2.0 P07A3(c500;TB;W24H15)";
    for (carriers, name, agent, charset, cookies) in [
        (&built_in, "docomo", imode_1, Charset::ShiftJis, Some(false)),
        (&built_in, "docomo", imode_2, Charset::Utf8, Some(true)),
        (&overlaid, "docomo", imode_2, Charset::EucJp, Some(true)),
        (&built_in, "docomo", "Mozilla/5.0 (Linux; Android 14; KY-42C)", Charset::Utf8, None),
        (&built_in, "au", "KDDI-SA3A UP.Browser/6.2.0.13.1.4 (GUI) MMP/2.0", Charset::ShiftJis, Some(true)),
        (&built_in, "au", "UP.Browser/3.04-SN11 UP.Link/3.4.4", Charset::ShiftJis, None),
        (&built_in, "softbank", "SoftBank/1.0/815SH/SHJ002 Browser/NetFront/3.4", Charset::Utf8, Some(true)),
        (&built_in, "softbank", "J-PHONE/4.3/V601T TS/2.00", Charset::ShiftJis, Some(false)),
        (&built_in, "acr", "Mozilla/5.0 (Linux; Android 13; Pixel 6)", Charset::Utf8, Some(true)),
        (&overlaid, "own", "anything", Charset::Utf8, None),
        (&overlaid, "own", imode_1, Charset::ShiftJis, Some(false)),
        (&overlaid, "au", "KDDI-SA3A UP.Browser/6.2.0.13.1.4 (GUI) MMP/2.0", Charset::EucJp, Some(false)),
    ] {
        let profile = carriers.profiles().iter().find(|p| p.name().as_str() == name).unwrap();
        let agent = UserAgent::parse(agent);
        assert_eq!(
            (profile.charset_for(&agent), profile.keeps_cookies(&agent)),
            (charset, cookies),
            "{name} {agent:?}"
        );
    }
}
