//! The table of the conformance file: genuine tokens, and hostile ones that each differ in the one way that names them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::forge::{AUDIENCE, Forge, ISSUER, Key, NOW, ORDER, der, hs256, message, mirrored};

/// What a verifier must say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Expect {
    Accept,
    Reject,
}

/// One token, as the value of the header that carries it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) expect: Expect,
    pub(crate) why: String,
    /// Whether it bears a valid signature of a published key.
    pub(crate) signed: bool,
    pub(crate) token: String,
}

/// The table while it is being written.
struct Table<'a> {
    forge: &'a Forge,
    cases: Vec<Case>,
}

pub(crate) fn cases(forge: &Forge) -> Vec<Case> {
    let mut table = Table { forge, cases: Vec::new() };
    table.genuine();
    table.shape();
    table.signature();
    table.algorithm();
    table.key();
    table.header();
    table.parties();
    table.times();
    table.other_claims();
    table.cases
}

impl Table<'_> {
    fn add(&mut self, expect: Expect, name: &str, token: String, why: &str) {
        let signed = self.forge.is_signed(&token);
        self.cases.push(Case { name: name.into(), expect, why: why.into(), signed, token });
    }

    fn accept(&mut self, name: &str, token: String, why: &str) {
        self.add(Expect::Accept, name, token, why);
    }

    fn reject(&mut self, name: &str, token: impl Into<String>, why: &str) {
        self.add(Expect::Reject, name, token.into(), why);
    }

    /// A genuine token with one claim set, or taken away.
    fn claim(&self, name: &str, value: impl Into<Option<Value>>) -> String {
        self.claims(&changed(&Forge::claims(), name, value.into()))
    }

    fn claims(&self, claims: &Value) -> String {
        self.forge.signed(&self.forge.current, &self.forge.header(), claims)
    }

    /// A genuine token with one member of its header set, or taken away.
    fn member(&self, name: &str, value: impl Into<Option<Value>>) -> String {
        self.member_by(&self.forge.current, name, value)
    }

    fn member_by(&self, key: &Key, name: &str, value: impl Into<Option<Value>>) -> String {
        self.forge.signed(key, &changed(&self.forge.header(), name, value.into()), &Forge::claims())
    }

    fn genuine(&mut self) {
        self.accept("genuine", self.forge.genuine(), "As the gateway signs it.");
        let next = self.forge.genuine_by_next();
        self.accept("genuine-next-key", next, "Every published key may sign; the kid says which.");
        let roles = self.claim("roles", json!(["ops"]));
        self.accept("unknown-claim", roles, "Later versions may say more; unknown claims are ignored (RFC 7519 §4).");
        let at = |iat: i64| {
            let claims = changed(&Forge::claims(), "iat", Some(json!(iat)));
            let claims = changed(&claims, "nbf", Some(json!(iat)));
            self.claims(&changed(&claims, "exp", Some(json!(iat + 60))))
        };
        let (old, late, early) = (at(NOW - 29), at(NOW - 62), at(NOW + 10));
        self.accept("half-of-its-life-ago", old, "The gateway uses an assertion for half its life.");
        self.accept("expired-within-leeway", late, "The clocks of gateway and upstream may be 30 s apart.");
        self.accept("issued-within-leeway", early, "The clocks of gateway and upstream may be 30 s apart.");
        let (message, signature) = split(&self.forge.genuine());
        let other = URL_SAFE_NO_PAD.encode(mirrored(&signature));
        let why = "(r, n-s) verifies where (r, s) does: half of the genuine ones have a high s. So the text of a token \
                   names nothing; a replay check uses jti.";
        self.accept("signature-mirrored", format!("{message}.{other}"), why);
    }

    fn shape(&mut self) {
        let good = self.forge.genuine();
        let [header, payload, signature]: [&str; 3] = good.split('.').collect::<Vec<_>>().try_into().unwrap();
        let bare = "Not three segments of base64url, joined by dots (RFC 7515 §7.1).";
        for (name, token) in [
            ("empty", String::new()),
            ("dots-alone", "..".into()),
            ("one-segment", header.into()),
            ("two-segments", format!("{header}.{payload}")),
            ("four-segments", format!("{good}.{signature}")),
            ("five-segments", format!("{good}.{payload}.{signature}")),
            ("leading-dot", format!(".{good}")),
            ("trailing-dot", format!("{good}.")),
        ] {
            self.reject(name, token, bare);
        }
        let alphabet = "base64url has no such characters and no padding (RFC 7515 §2): text that is skipped or \
                        forgiven lets one token have many spellings.";
        for (name, token) in [
            ("padded-header", format!("{header}=.{payload}.{signature}")),
            ("padded-payload", format!("{header}.{payload}=.{signature}")),
            ("padded-signature", format!("{good}==")),
            ("standard-base64", format!("{header}.{payload}.{}", signature.replace('-', "+").replace('_', "/"))),
            ("space-before", format!(" {good}")),
            ("space-after", format!("{good} ")),
            ("tab-after", format!("{good}\t")),
            ("newline-after", format!("{good}\n")),
            ("newline-in-signature", format!("{header}.{payload}.{}\n{}", &signature[..43], &signature[43..])),
            ("space-in-signature", format!("{header}.{payload}.{} {}", &signature[..43], &signature[43..])),
            ("space-in-payload", format!("{header}.{} {}.{signature}", &payload[..40], &payload[40..])),
            ("foreign-character-in-signature", format!("{header}.{payload}.{}!{}", &signature[..43], &signature[43..])),
            ("percent-encoded-dots", good.replace('.', "%2E")),
            ("nul-after", format!("{good}\0")),
        ] {
            self.reject(name, token, alphabet);
        }
        let stray = format!("{header}.{payload}.{}", with_stray_bits(signature));
        let why =
            "The last character holds four bits that must be zero (RFC 4648 §3.5): else one signature has 16 texts.";
        self.reject("stray-bits-in-signature", stray, why);
        self.reject("truncated", &good[..good.len() - 8], "A cut signature is none.");
        self.reject("lower-case", good.to_lowercase(), "base64url tells capitals apart.");
        self.reject("upper-case", good.to_uppercase(), "base64url tells capitals apart.");
        self.reject("bearer-prefix", format!("Bearer {good}"), "The header carries the token and nothing else.");
        let two = "Two headers, as servers join them: somebody put one beside the gateway's.";
        self.reject("two-headers", format!("{good}, {good}"), two);
        self.reject("two-headers-without-space", format!("{good},{good}"), two);
        let json = json!({
            "payload": payload, "signatures": [{"protected": header, "signature": signature}]
        });
        self.reject("json-serialization", json.to_string(), "Only the compact form is used (RFC 7515 §7.2).");
        let why = "The gateway writes no token of more than 4096 bytes: stop reading before you parse.";
        self.reject("very-long", self.claim("pad", json!("x".repeat(4096))), why);
    }

    fn signature(&mut self) {
        let good = self.forge.genuine();
        let (message, signature) = split(&good);
        let with = |bytes: &[u8]| format!("{message}.{}", URL_SAFE_NO_PAD.encode(bytes));
        self.reject("signature-stripped", format!("{message}."), "Nothing was signed.");
        let other = self.forge.genuine_by_next();
        let swapped = format!("{message}.{}", other.rsplit_once('.').unwrap().1);
        self.reject("signature-of-another-token", swapped, "It signs another text.");
        let zero = "r and s lie between 1 and n-1; Java 15 to 18 took zeros for any message (CVE-2022-21449).";
        self.reject("signature-zeros", with(&[0; 64]), zero);
        let (r, s) = signature.split_at(32);
        self.reject("signature-zero-r", with(&[&[0; 32], s].concat()), zero);
        self.reject("signature-zero-s", with(&[r, &[0; 32]].concat()), zero);
        self.reject("signature-order", with(&[ORDER, ORDER].concat()), zero);
        let longer = "An ES256 signature is exactly 64 octets, r and s of 32 each (RFC 7518 §3.4).";
        self.reject("signature-der", with(&der(&signature)), longer);
        self.reject("signature-one-octet-more", with(&[&signature[..], &[0]].concat()), longer);
        self.reject("signature-one-octet-less", with(&signature[..63]), longer);
        self.reject("signature-half", with(r), longer);
        self.reject("signature-of-96-octets", with(&[&[0; 16], r, &[0; 16], s].concat()), longer);
        for (name, at) in [("signature-bit-of-r", 5), ("signature-bit-of-s", 50)] {
            let mut changed = signature;
            changed[at] ^= 1;
            self.reject(name, with(&changed), "One bit is another.");
        }
        let mut turned = signature;
        turned.rotate_left(32);
        self.reject("signature-s-before-r", with(&turned), "r stands first.");

        let [header, payload, signature]: [&str; 3] = good.split('.').collect::<Vec<_>>().try_into().unwrap();
        let text = |segment: &str| String::from_utf8(URL_SAFE_NO_PAD.decode(segment).unwrap()).unwrap();
        let sub = text(payload).replacen("Zk9xQ1Vo", "Zk9xQ1Vp", 1);
        let reheaded = |header: &str| format!("{}.{payload}.{signature}", URL_SAFE_NO_PAD.encode(header));
        let repaid = |payload: &str| format!("{header}.{}.{signature}", URL_SAFE_NO_PAD.encode(payload));
        self.reject("payload-changed", repaid(&sub), "The signature is of another subject's claims.");
        let spaced = text(payload).replace(',', ", ");
        let octets =
            "The octets are signed, not what they mean: never sign or compare what was parsed and written again.";
        self.reject("payload-written-anew", repaid(&spaced), octets);
        self.reject("header-written-anew", reheaded(&text(header).replace(',', ", ")), octets);
        self.reject("payload-cut", format!("{header}.{}.{signature}", &payload[..payload.len() - 4]), octets);
    }

    fn algorithm(&mut self) {
        let claims = Forge::claims();
        let with = |alg: &str| changed(&self.forge.header(), "alg", Some(json!(alg)));
        let unsigned = |alg: &str| message(&with(alg).to_string(), &claims.to_string());
        let signature = self.forge.genuine().rsplit_once('.').unwrap().1.to_owned();
        let none = "Anybody can write it: only ES256 is accepted, whatever a token asks for (RFC 8725 §3.1).";
        for alg in ["none", "None", "NONE", "nOnE", ""] {
            let name = if alg.is_empty() { "alg-empty" } else { &format!("alg-{alg}") };
            self.reject(name, format!("{}.", unsigned(alg)), none);
        }
        self.reject("alg-none-with-signature", format!("{}.{signature}", unsigned("none")), none);
        let bare = json!({"alg": "none"});
        self.reject("alg-none-alone", format!("{}.", message(&bare.to_string(), &claims.to_string())), none);
        let hmac = "The public key is no secret: whoever reads the JWKS could sign (RFC 8725 §2.1).";
        let pem = self.forge.current.pem();
        let jwks = self.forge.jwks().to_string();
        let x = self.forge.current.jwk()["x"].as_str().unwrap().to_owned();
        let kid = self.forge.kids().0.to_owned();
        let x_octets = URL_SAFE_NO_PAD.decode(&x).unwrap();
        for (name, secret) in [
            ("hs256-with-pem", pem.as_bytes()),
            ("hs256-with-pem-trimmed", pem.trim_end().as_bytes()),
            ("hs256-with-jwks", jwks.as_bytes()),
            ("hs256-with-x", x.as_bytes()),
            ("hs256-with-x-octets", &x_octets),
            ("hs256-with-kid", kid.as_bytes()),
            ("hs256-with-empty-secret", b""),
        ] {
            self.reject(name, hs256(secret, &with("HS256"), &claims), hmac);
        }
        let rsa = self.forge.signed_by_rsa(&with("RS256"), &claims);
        self.reject("rs256", rsa, "A stranger's RSA key; only ES256 is accepted.");
        let p384 = self.forge.signed(&self.forge.stranger_p384, &with("ES384"), &claims);
        self.reject("es384", p384, "A stranger's P-384 key; only ES256 is accepted.");
        for (name, alg) in [
            ("alg-es384-by-our-key", "ES384"),
            ("alg-es512-by-our-key", "ES512"),
            ("alg-es256k-by-our-key", "ES256K"),
            ("alg-eddsa-by-our-key", "EdDSA"),
            ("alg-hs256-by-our-key", "HS256"),
            ("alg-lower-case", "es256"),
            ("alg-with-space", "ES256 "),
        ] {
            self.reject(name, self.member("alg", json!(alg)), "alg is ES256, letter for letter.");
        }
        self.reject("alg-missing", self.member("alg", None), "alg is ES256; nothing is assumed.");
        self.reject("alg-list", self.member("alg", json!(["ES256"])), "alg is a string (RFC 7515 §4.1.1).");
    }

    fn key(&mut self) {
        let unknown = "No published key has this kid: ask for the JWKS again, at most every 30 s; try no other key.";
        for (name, kid) in [
            ("kid-unknown", "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY"),
            ("kid-empty", ""),
            ("kid-path", "../../../../dev/null"),
            ("kid-url", "https://evil.example/jwks.json"),
            ("kid-sql", "' UNION SELECT 'x' --"),
        ] {
            self.reject(name, self.member("kid", json!(kid)), unknown);
        }
        let (current, next) = (self.forge.kids().0.to_owned(), self.forge.kids().1.to_owned());
        self.reject("kid-upper-case", self.member("kid", json!(current.to_uppercase())), unknown);
        self.reject("kid-with-space", self.member("kid", json!(format!("{current} "))), unknown);
        let missing = "The gateway always names its key; trying all keys, or the only one, is not asked for.";
        self.reject("kid-missing", self.member("kid", None), missing);
        self.reject("kid-null", self.member("kid", Value::Null), missing);
        self.reject("kid-number", self.member("kid", json!(0)), "kid is a string (RFC 7515 §4.1.4).");
        self.reject("kid-list", self.member("kid", json!([current])), "kid is a string (RFC 7515 §4.1.4).");
        let other = self.member("kid", json!(next));
        self.reject("kid-of-the-other-key", other, "The key that the kid names did not sign it.");

        let stranger = &self.forge.stranger;
        let forged = self.forge.signed(stranger, &self.forge.header(), &Forge::claims());
        self.reject("stranger-under-our-kid", forged, "Signed with a stranger's key.");
        let own_kid = self.member_by(stranger, "kid", json!("stranger"));
        self.reject(
            "stranger-under-its-kid",
            own_kid,
            "Signed with a stranger's key, under a kid that is not published.",
        );
        let no_kid = self.member_by(stranger, "kid", None);
        self.reject("stranger-without-kid", no_kid, "Signed with a stranger's key.");
        let mut jwk = stranger.jwk();
        jwk["kid"] = json!(current);
        let certificate = self.forge.stranger_certificate.clone();
        for (name, value) in [
            ("jwk", jwk),
            ("jku", json!("https://evil.example/jwks.json")),
            ("x5u", json!("https://evil.example/certificate.pem")),
            ("x5c", json!([certificate])),
        ] {
            let brought = "It brings its own key, or says where to fetch one: keys come from the gateway's JWKS alone.";
            let forged = self.member_by(&self.forge.stranger, name, value.clone());
            self.reject(&format!("{name}-of-a-stranger"), forged, brought);
            let alone = changed(&changed(&self.forge.header(), "kid", None), name, Some(value.clone()));
            let forged = self.forge.signed(&self.forge.stranger, &alone, &Forge::claims());
            self.reject(&format!("{name}-of-a-stranger-without-kid"), forged, brought);
            let exact = "The gateway writes alg, typ and kid; a header with more is not its own.";
            self.reject(&format!("{name}-under-our-signature"), self.member(name, value), exact);
        }
    }

    fn header(&mut self) {
        let typ = "Another kind of token, even one of ours, is no assertion (RFC 8725 §3.11).";
        for (name, value) in [
            ("typ-jwt", json!("JWT")),
            ("typ-at-jwt", json!("at+jwt")),
            ("typ-logout-jwt", json!("logout+jwt")),
            ("typ-empty", json!("")),
            ("typ-null", Value::Null),
            ("typ-list", json!(["sekisho-assertion+jwt"])),
        ] {
            self.reject(name, self.member("typ", value), typ);
        }
        self.reject("typ-missing", self.member("typ", None), typ);
        let exactly = "The gateway writes sekisho-assertion+jwt, letter for letter.";
        self.reject("typ-other-case", self.member("typ", json!("Sekisho-Assertion+JWT")), exactly);
        self.reject("typ-with-prefix", self.member("typ", json!("application/sekisho-assertion+jwt")), exactly);

        let crit = "An extension that must be understood, and is not (RFC 7515 §4.1.11).";
        let mut unknown = changed(&self.forge.header(), "crit", Some(json!(["evil"])));
        unknown["evil"] = json!(true);
        let critical = self.forge.signed(&self.forge.current, &unknown, &Forge::claims());
        self.reject("crit-unknown", critical, crit);
        self.reject("crit-absent-member", self.member("crit", json!(["evil"])), crit);
        self.reject("crit-standard-member", self.member("crit", json!(["alg"])), crit);
        self.reject("crit-empty", self.member("crit", json!([])), "crit must not be empty (RFC 7515 §4.1.11).");
        let mut unencoded = changed(&self.forge.header(), "crit", Some(json!(["b64"])));
        unencoded["b64"] = json!(false);
        let unencoded = self.forge.signed(&self.forge.current, &unencoded, &Forge::claims());
        self.reject("b64-false", unencoded, "Unencoded payloads are not used (RFC 7797).");
        let exact = "The gateway writes alg, typ and kid; a header with more is not its own.";
        self.reject("b64-false-uncritical", self.member("b64", json!(false)), exact);
        self.reject("zip", self.member("zip", json!("DEF")), exact);
        self.reject("cty-jwt", self.member("cty", json!("JWT")), exact);
        self.reject("unknown-header-member", self.member("x", json!(1)), exact);

        let current = &self.forge.current;
        let claims = Forge::claims().to_string();
        let as_list = json!(["ES256", "sekisho-assertion+jwt", self.forge.kids().0]).to_string();
        let object = "A header is a JSON object (RFC 7515 §4).";
        let lists = self.forge.signed_text(current, &as_list, &claims);
        let texts = self.forge.signed_text(current, "\"ES256\"", &claims);
        let broken = self.forge.signed_text(current, &self.forge.header().to_string().replace('}', ""), &claims);
        let trailing = self.forge.signed_text(current, &format!("{},", self.forge.header()), &claims);
        self.reject("header-list", lists, object);
        self.reject("header-string", texts, object);
        self.reject("header-broken-json", broken, object);
        self.reject("header-trailing-comma", trailing, object);
        let repeated = "Members are unique (RFC 7515 §4): readers differ in which of two they take.";
        for (name, member, value) in [
            ("header-alg-twice", "alg", "none"),
            ("header-typ-twice", "typ", "JWT"),
            ("header-kid-twice", "kid", "stranger"),
        ] {
            let [first, last] = twice(&self.forge.header(), member, value);
            let (first, last) =
                (self.forge.signed_text(current, &first, &claims), self.forge.signed_text(current, &last, &claims));
            self.reject(&format!("{name}-ours-last"), first, repeated);
            self.reject(&format!("{name}-ours-first"), last, repeated);
        }
    }

    fn parties(&mut self) {
        let issuer = "Another gateway's: iss is this gateway's public_url, letter for letter.";
        for (name, value) in [
            ("iss-other", json!("https://evil.example")),
            ("iss-with-slash", json!(format!("{ISSUER}/"))),
            ("iss-longer", json!(format!("{ISSUER}.evil.example"))),
            ("iss-shorter", json!("https://admin.example.j")),
            ("iss-other-case", json!("https://ADMIN.example.jp")),
            ("iss-http", json!("http://admin.example.jp")),
            ("iss-list", json!([ISSUER])),
            ("iss-null", Value::Null),
        ] {
            self.reject(name, self.claim("iss", value), issuer);
        }
        self.reject("iss-missing", self.claim("iss", None), issuer);
        let audience = "Another upstream's: one that may keep what it is sent could come with it to this one.";
        for (name, value) in [
            ("aud-other", json!("https://reports.internal")),
            ("aud-with-slash", json!(format!("{AUDIENCE}/"))),
            ("aud-longer", json!(format!("{AUDIENCE}.evil.example"))),
            ("aud-shorter", json!("https://console")),
            ("aud-empty", json!("")),
            ("aud-null", Value::Null),
        ] {
            self.reject(name, self.claim("aud", value), audience);
        }
        self.reject("aud-missing", self.claim("aud", None), audience);
        let one =
            "aud is one string: an assertion that is good for two upstreams could be passed on from one to the other.";
        for (name, value) in [
            ("aud-list-of-ours", json!([AUDIENCE])),
            ("aud-list-ours-first", json!([AUDIENCE, "https://reports.internal"])),
            ("aud-list-ours-last", json!(["https://reports.internal", AUDIENCE])),
            ("aud-list-empty", json!([])),
            ("aud-object", json!({AUDIENCE: true})),
        ] {
            self.reject(name, self.claim("aud", value), one);
        }
    }

    fn times(&mut self) {
        let over = "It is over.";
        let at = NOW - 600;
        let mut old = Forge::claims();
        (old["iat"], old["nbf"], old["exp"]) = (json!(at), json!(at), json!(at + 60));
        self.reject("expired", self.claims(&old), over);
        (old["iat"], old["nbf"]) = (json!(at - 86_400), json!(at - 86_400));
        self.reject("exp-zero", self.claim("exp", json!(0)), over);
        self.reject("exp-negative", self.claim("exp", json!(-1)), over);
        let never = "What never ends can be used for ever once it leaks.";
        self.reject("exp-missing", self.claim("exp", None), never);
        self.reject("exp-null", self.claim("exp", Value::Null), never);
        let number = "Times are whole seconds, as a JSON number (RFC 7519 §2).";
        let soon = NOW + 50;
        for (name, value) in [
            ("exp-string", json!(soon.to_string())),
            ("exp-date", json!("2026-11-24T00:01:00Z")),
            ("exp-fraction", json!(1_795_478_450.5)),
            ("exp-huge", json!(1e300)),
            ("exp-true", json!(true)),
            ("exp-list", json!([soon])),
        ] {
            self.reject(name, self.claim("exp", value), number);
        }
        let long = "exp is 60 s after iat, 300 s at most: a longer life is not the gateway's.";
        self.reject("lives-for-a-day", self.claim("exp", json!(NOW + 86_400)), long);
        self.reject("lives-for-ever", self.claim("exp", json!(i64::MAX)), long);
        self.reject("issued-long-ago", self.claim("iat", json!(NOW - 86_400)), long);
        let early = "Not begun: it was kept back, or a clock is wrong.";
        let at = NOW + 600;
        let mut ahead = Forge::claims();
        (ahead["iat"], ahead["nbf"], ahead["exp"]) = (json!(at), json!(at), json!(at + 60));
        self.reject("issued-in-the-future", self.claims(&ahead), early);
        ahead["nbf"] = json!(NOW);
        self.reject("iat-in-the-future", self.claims(&ahead), early);
        self.reject("nbf-in-the-future", self.claim("nbf", json!(NOW + 600)), early);
        self.reject("iat-missing", self.claim("iat", None), "Without iat its life cannot be bounded.");
        self.reject("nbf-missing", self.claim("nbf", None), "The gateway always says it.");
        self.reject("iat-string", self.claim("iat", json!((NOW - 10).to_string())), number);
        self.reject("nbf-string", self.claim("nbf", json!((NOW - 10).to_string())), number);
        self.reject("auth-time-missing", self.claim("auth_time", None), "The gateway always says it.");
        self.reject("auth-time-string", self.claim("auth_time", json!("2026-11-24")), number);
    }

    fn other_claims(&mut self) {
        let nobody = "sub is who is there; an empty or absent one must not become somebody.";
        for (name, value) in [
            ("sub-empty", json!("")),
            ("sub-null", Value::Null),
            ("sub-number", json!(1)),
            ("sub-list", json!(["Zk9xQ1VoT3pMbVd5dEJhUg"])),
            ("sub-object", json!({"id": "root"})),
        ] {
            self.reject(name, self.claim("sub", value), nobody);
        }
        self.reject("sub-missing", self.claim("sub", None), nobody);
        for claim in ["jti", "sid", "acr", "amr"] {
            self.reject(&format!("{claim}-missing"), self.claim(claim, None), "The gateway always says it.");
        }
        self.reject("jti-empty", self.claim("jti", json!("")), "The gateway always says it.");
        self.reject("sid-empty", self.claim("sid", json!("")), "The gateway always says it.");
        self.reject("acr-number", self.claim("acr", json!(2)), "acr is a string.");
        self.reject("amr-string", self.claim("amr", json!("carrier")), "amr is a list of strings (RFC 8176 §1).");

        let (forge, current, header) = (self.forge, &self.forge.current, self.forge.header().to_string());
        let text = |payload: &str| forge.signed_text(current, &header, payload);
        let claims = Forge::claims();
        let order = ["iss", "aud", "sub", "iat", "nbf", "exp", "jti", "sid", "auth_time", "acr", "amr"];
        let values: Vec<_> = order.iter().map(|name| &claims[name]).collect();
        let object = "The claims are a JSON object (RFC 7519 §4).";
        self.reject("claims-list", text(&json!(values).to_string()), object);
        self.reject("claims-list-of-object", text(&json!([claims]).to_string()), object);
        self.reject("claims-string", text(&json!(claims.to_string()).to_string()), object);
        self.reject("claims-null", text("null"), object);
        self.reject("claims-empty", text(""), object);
        self.reject("claims-broken-json", text(&claims.to_string().replace('}', "")), object);
        self.reject("claims-two-objects", text(&format!("{claims}{claims}")), object);
        let nested = forge.genuine();
        self.reject("claims-nested-token", text(&json!(nested).to_string()), object);
        let repeated = "Claims are unique (RFC 7519 §4): readers differ in which of two they take.";
        for (name, claim, value) in [
            ("iss-twice", "iss", "https://evil.example"),
            ("aud-twice", "aud", "https://reports.internal"),
            ("sub-twice", "sub", "root"),
        ] {
            let [first, last] = twice(&claims, claim, value);
            self.reject(&format!("{name}-ours-last"), text(&first), repeated);
            self.reject(&format!("{name}-ours-first"), text(&last), repeated);
        }
    }
}

/// `object` with one member set, or without it.
fn changed(object: &Value, name: &str, value: Option<Value>) -> Value {
    let mut object = object.clone();
    let members = object.as_object_mut().unwrap();
    match value {
        Some(value) => members.insert(name.into(), value),
        None => members.remove(name),
    };
    object
}

/// `object` as text with a second member of that name: before all others, and after them.
fn twice(object: &Value, name: &str, value: &str) -> [String; 2] {
    let (text, second) = (object.to_string(), json!({ name: value }).to_string());
    let (inner, second) = (&text[1..text.len() - 1], &second[1..second.len() - 1]);
    [format!("{{{second},{inner}}}"), format!("{{{inner},{second}}}")]
}

fn split(token: &str) -> (String, [u8; 64]) {
    let (message, signature) = token.rsplit_once('.').unwrap();
    (message.to_owned(), URL_SAFE_NO_PAD.decode(signature).unwrap().try_into().unwrap())
}

/// The same octets by another text: the bits after the last octet set.
fn with_stray_bits(segment: &str) -> String {
    let (front, last) = segment.split_at(segment.len() - 1);
    // In the alphabet each of A, Q, g and w is followed by 15 letters that mean the same two leading bits.
    let next = last.bytes().next().unwrap() + 1;
    format!("{front}{}", char::from(next))
}
