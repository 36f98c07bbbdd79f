//! What the user may write: shapes, no rules.
//!
//! Every key is optional here, so that `check` can say in its own words what is missing. A key's line follows
//! from its path (`document`), so values stand without spans. `docs/configuration.md` describes every key; a test
//! below keeps the two lists equal.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de};

/// Declares tables whose keys are all optional and whose unknown keys are errors.
macro_rules! tables {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty),* $(,)? })*) => {$(
        $(#[$doc])*
        #[derive(Default, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub(super) struct $name { $(pub(super) $field: Option<$type>),* }
    )*};
}

tables! {
    /// The whole file.
    Root {
        gateway: Table<Gateway>,
        listener: Vec<Table<Listener>>,
        admin: Table<Admin>,
        carriers: BTreeMap<String, Table<Carrier>>,
        upstream: Vec<Table<Upstream>>,
        route: Vec<Table<Route>>,
        session: Table<Session>,
        binding: Table<Binding>,
        store: Table<Store>,
        backup: Table<Backup>,
        limits: Table<Limits>,
        keys: Table<Keys>,
        notice: Table<Notice>,
        log: Table<Log>,
        privacy: Table<Privacy>,
        trace: Table<Trace>,
    }

    Gateway { public_url: String, plain_url: String, hosts: Vec<String>, trusted_proxies: Vec<String> }

    Listener { serves: Serves, address: String, tls: Table<ListenerTls>, proxy_protocol: bool }

    ListenerTls {
        certificate: String,
        key: String,
        additional: Vec<Table<AdditionalCertificate>>,
        client_ca: String,
        client_crl: String,
    }

    AdditionalCertificate { certificate: String, key: String }

    Admin { socket: String, approvals: i64, people: BTreeMap<String, Vec<String>>, roles: Table<Roles> }

    Roles { operator: Vec<String>, security: Vec<String>, privacy: Vec<String>, auditor: Vec<String> }

    Carrier {
        header: String,
        grammar: String,
        identifier_parts: Vec<String>,
        refuse_parts: BTreeMap<String, Vec<String>>,
        require_query: Table<RequireQuery>,
        user_agent: String,
        over_tls: String,
        networks: Or<String, Vec<String>>,
        cookies: Or<bool, BTreeMap<String, bool>>,
        charset: Or<String, BTreeMap<String, String>>,
    }

    RequireQuery { name: String, value: String, ignore_case: bool }

    Upstream {
        name: String,
        servers: Vec<String>,
        audience: String,
        may_bind: bool,
        subject: Subject,
        ca: String,
        client_certificate: Table<ClientCertificate>,
        connections: i64,
        queue: Table<Queue>,
        health: Table<Health>,
        timeout: Table<Timeout>,
    }

    ClientCertificate { certificate: String, key: String }

    Queue { length: i64, time: String }

    Health { path: String, interval: String }

    Timeout { connect: String, first_byte: String, idle: String }

    Route { path: String, upstream: String, access: Access, assurance: Assurance, body: String }

    Session {
        idle: String,
        absolute: String,
        per_account: i64,
        transport: Transport,
        url_over_tls: UrlOverTls,
        pin_for: String,
    }

    Binding { retention: String, per_account: i64, stretch: Or<StretchWord, Table<Stretch>> }

    Stretch { memory: String, passes: i64 }

    Store { path: String, url: Secret, sessions: Secret }

    Backup { ledger: String, retention: String }

    Limits {
        sign_in: String,
        code: String,
        pin: String,
        network: String,
        head: String,
        headers: i64,
        url: String,
        body: String,
        connections: i64,
        connections_per_address: i64,
        requests: String,
        timeouts: Table<Timeouts>,
    }

    Timeouts { handshake: String, head: String, body_idle: String, write_idle: String, keep_alive: String }

    Keys {
        kek: Kek, kek_next: Kek, cooling: String, assertion_publish: String, assertion_rotate: String,
        session_rotate: String, audit_rotate: String,
    }

    KekTable { file: String, env: String, credential: String, pkcs11: Table<Pkcs11> }

    Pkcs11 { module: String, token: String, key: String, pin: Secret, timeout: String }

    Notice { controller: String, contact: String, revision: String }

    Log { access: Table<AccessLog>, security: Table<SecurityLog>, level: Level }

    AccessLog { to: Destination, file: String, format: Format, sealed: bool }

    SecurityLog { to: Stdout, file: String }

    Privacy {
        client_address: ClientAddress,
        access_log_retention: String,
        security_log_retention: String,
        audit_retention: String,
        sessions_retention: String,
        codes_retention: String,
        statistics_retention: String,
        statistics_floor: i64,
    }

    Trace {
        endpoint: String,
        ratio: f64,
        sampling: Sampling,
        headers: BTreeMap<String, Secret>,
        ca: String,
        service: String,
    }

    SecretTable { file: String, env: String, credential: String }
}

/// Declares a choice of words.
macro_rules! words {
    ($($name:ident { $($word:ident),* })*) => {$(
        #[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub(super) enum $name { $($word),* }
    )*};
}

words! {
    Serves { Handset, ForwardAuth, Ops, Admin }
    Subject { Pairwise, Account }
    Access { Session, Public, Login }
    Transport { Auto, Cookie, Url }
    UrlOverTls { Allow, Refuse }
    StretchWord { Auto, Off }
    Level { Error, Warn, Info, Debug, Trace }
    Destination { Stdout, Off }
    Stdout { Stdout }
    Format { Json, Clf }
    ClientAddress { Full, Prefix, None }
    Sampling { Ratio, Parent }
}

/// `route.assurance`.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) enum Assurance {
    #[serde(rename = "device")]
    Device,
    #[serde(rename = "device+pin")]
    DevicePin,
}

/// A secret's place, or, wrongly, the secret itself.
pub(super) type Secret = Or<Inline, Table<SecretTable>>;

/// The place of the key-encryption key, or, wrongly, the key itself.
pub(super) type Kek = Or<Inline, Table<KekTable>>;

/// A secret that was written into the file; its text is dropped at once.
#[derive(Clone, Copy)]
pub(super) struct Inline;

/// A TOML table and nothing else: a derived struct alone would take a list as well, by position.
#[derive(Default)]
pub(super) struct Table<T>(pub(super) T);

/// A short form, or a list or table; `untagged` would lose the place of an error inside.
pub(super) enum Or<S, T> {
    /// The short form.
    Short(S),
    /// The long form.
    Long(T),
}

/// What [`Or`] says is expected, after "must be".
trait Forms {
    const FORMS: &'static str;
}

impl Forms for Or<String, Vec<String>> {
    const FORMS: &'static str = "a list of networks, or \"reference\"";
}

impl Forms for Or<bool, BTreeMap<String, bool>> {
    const FORMS: &'static str = "true, false, or a table of browser generations";
}

impl Forms for Or<String, BTreeMap<String, String>> {
    const FORMS: &'static str = "a charset, or a table of browser generations";
}

impl Forms for Or<StretchWord, Table<Stretch>> {
    const FORMS: &'static str = "\"auto\", \"off\" or { memory = \"19MiB\", passes = 2 }";
}

impl Forms for Secret {
    const FORMS: &'static str = "{ file = \"…\" }, { env = \"…\" } or { credential = \"…\" }";
}

impl Forms for Kek {
    const FORMS: &'static str = "{ file = \"…\" }, { env = \"…\" }, { credential = \"…\" } or { pkcs11 = { … } }";
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Table<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MapOnly<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for MapOnly<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }

        deserializer.deserialize_map(MapOnly(PhantomData)).map(Self)
    }
}

impl<'de> Deserialize<'de> for Inline {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        de::IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

impl<'de, S: Deserialize<'de>, T: Deserialize<'de>> Deserialize<'de> for Or<S, T>
where
    Self: Forms,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<S, T>(PhantomData<(S, T)>);

        impl<'de, S: Deserialize<'de>, T: Deserialize<'de>> Visitor<'de> for Either<S, T>
        where
            Or<S, T>: Forms,
        {
            type Value = Or<S, T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(Or::<S, T>::FORMS)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                S::deserialize(text.into_deserializer()).map(Or::Short)
            }

            fn visit_bool<E: de::Error>(self, flag: bool) -> Result<Self::Value, E> {
                S::deserialize(flag.into_deserializer()).map(Or::Short)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
                T::deserialize(SeqAccessDeserializer::new(list)).map(Or::Long)
            }

            fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(table)).map(Or::Long)
            }
        }

        deserializer.deserialize_any(Either(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde::forward_to_deserialize_any;

    use super::*;

    const REFERENCE: &str = include_str!("../../docs/configuration.md");

    /// Takes the field names that a derived struct asks for, and gives it nothing.
    struct FieldNames<'a>(&'a mut &'static [&'static str]);

    impl<'de> Deserializer<'de> for FieldNames<'_> {
        type Error = de::value::Error;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
            Err(de::Error::custom("names only"))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, Self::Error> {
            *self.0 = fields;
            Err(de::Error::custom("names only"))
        }

        forward_to_deserialize_any! {
            bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct
            newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }

    fn keys<T: for<'de> Deserialize<'de>>(prefix: &str) -> Vec<String> {
        let mut names: &[&str] = &[];
        assert!(T::deserialize(FieldNames(&mut names)).is_err());
        names.iter().map(|name| format!("{prefix}.{name}")).collect()
    }

    #[test]
    fn the_reference_page_lists_every_key_and_no_other() {
        let accepted: BTreeSet<String> = [
            keys::<Gateway>("gateway"),
            keys::<Listener>("listener"),
            keys::<ListenerTls>("listener.tls"),
            keys::<AdditionalCertificate>("listener.tls.additional"),
            keys::<Admin>("admin"),
            keys::<Roles>("admin.roles"),
            keys::<Carrier>("carriers.NAME"),
            keys::<RequireQuery>("carriers.NAME.require_query"),
            keys::<Upstream>("upstream"),
            keys::<ClientCertificate>("upstream.client_certificate"),
            keys::<Queue>("upstream.queue"),
            keys::<Health>("upstream.health"),
            keys::<Timeout>("upstream.timeout"),
            keys::<Route>("route"),
            keys::<Session>("session"),
            keys::<Binding>("binding"),
            keys::<Stretch>("binding.stretch"),
            keys::<Store>("store"),
            keys::<Backup>("backup"),
            keys::<Limits>("limits"),
            keys::<Timeouts>("limits.timeouts"),
            keys::<Keys>("keys"),
            keys::<Pkcs11>("keys.kek.pkcs11"),
            keys::<Notice>("notice"),
            keys::<Log>("log"),
            keys::<AccessLog>("log.access"),
            keys::<SecurityLog>("log.security"),
            keys::<Privacy>("privacy"),
            keys::<Trace>("trace"),
        ]
        .concat()
        .into_iter()
        .collect();
        let rows = REFERENCE.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
        let described: BTreeSet<String> = rows.map(str::to_owned).collect();
        assert_eq!(described, accepted);
        for section in keys::<Root>("") {
            assert!(REFERENCE.contains(&format!("[{}", section.trim_start_matches('.'))), "{section}");
        }
    }
}
