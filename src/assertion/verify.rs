//! An assertion judged as an upstream should: for the sample console and for tests.
//!
//! Stricter than JWS allows: exactly the header that a [`Signer`](super::Signer) writes, so that nothing in a token
//! can choose algorithm, key or where to fetch one. Times are judged with `now`, not by jsonwebtoken, which would
//! ask the system's clock.

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::claims::TYPE;
use super::provider::install_crypto_provider;
use crate::clock::Timestamp;

/// Longest token that is looked at, in bytes.
const MAX_TOKEN: usize = 4096;
/// How far the clocks of gateway and upstream may be apart.
const LEEWAY: Duration = Duration::from_secs(30);
/// Longest life that an upstream should believe, in seconds (`assertion.md`, "Claims").
const MAX_LIFETIME_SECONDS: i64 = 300;

/// The keys and expectations of one upstream.
pub struct AssertionVerifier {
    keys: HashMap<String, DecodingKey>,
    issuer: String,
    audience: String,
}

/// What a genuine assertion says. Members that are not known here are allowed and left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names of the claims, as `assertion.md` lists them")]
pub struct VerifiedClaims {
    pub iss: String,
    pub aud: String,
    pub sub: String,
    pub iat: i64,
    pub nbf: i64,
    pub exp: i64,
    pub jti: String,
    pub sid: String,
    pub auth_time: i64,
    pub acr: String,
    pub amr: Vec<String>,
}

/// A document that is no JWKS, or names two keys alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not a JWKS document with distinct key ids")]
pub struct JwksError;

/// Why an assertion is not believed; none of it is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum VerifyError {
    /// Not three segments of base64url without padding, or too long.
    #[error("not a compact JWS of at most {MAX_TOKEN} bytes")]
    Malformed,
    /// The header is not exactly `alg`, `typ` and `kid`, with the values that are expected.
    #[error("the JOSE header is not alg ES256, typ {TYPE} and a kid")]
    Header,
    /// No such key in the JWKS: fetch it again, at most every 30 s.
    #[error("the JWKS has no key of that kid")]
    UnknownKey,
    /// Not signed by that key.
    #[error("the signature does not verify")]
    Signature,
    /// A claim is missing, empty or of another type.
    #[error("a claim is missing or of the wrong type")]
    Claims,
    /// Another gateway's.
    #[error("the issuer is another")]
    Issuer,
    /// Another upstream's.
    #[error("the audience is another")]
    Audience,
    /// Over.
    #[error("the assertion has expired")]
    Expired,
    /// Not begun.
    #[error("the assertion is not valid yet")]
    NotYetValid,
    /// It claims to live for too long.
    #[error("the assertion lives for too long")]
    Lifetime,
}

impl AssertionVerifier {
    /// Expects assertions of `issuer` for `audience`, signed by a P-256 key of the JWKS document `jwks`.
    ///
    /// Keys of other kinds are ignored (RFC 7517 §5).
    ///
    /// # Errors
    /// [`JwksError`] if `jwks` is no JWKS document.
    pub fn new(jwks: &str, issuer: &str, audience: &str) -> Result<Self, JwksError> {
        install_crypto_provider();
        let document: JwkSet = serde_json::from_str(jwks).map_err(|_| JwksError)?;
        let mut keys = HashMap::new();
        for jwk in document.keys {
            if let Some((kid, key)) = jwk.into_key()
                && keys.insert(kid, key).is_some()
            {
                return Err(JwksError);
            }
        }
        Ok(Self { keys, issuer: issuer.to_owned(), audience: audience.to_owned() })
    }

    /// What `token` says, if it is genuine, for this audience, and valid at `now` give or take 30 s.
    ///
    /// # Errors
    /// [`VerifyError`] if it is not to be believed.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<VerifiedClaims, VerifyError> {
        if token.len() > MAX_TOKEN {
            return Err(VerifyError::Malformed);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(VerifyError::Malformed)?;
        let (header, payload) = message.split_once('.').ok_or(VerifyError::Malformed)?;
        let header: JoseHeader = json(header, VerifyError::Header)?;
        if header.alg != "ES256" || header.typ != TYPE {
            return Err(VerifyError::Header);
        }
        let key = self.keys.get(&header.kid).ok_or(VerifyError::UnknownKey)?;
        match jsonwebtoken::crypto::verify(signature, message.as_bytes(), key, Algorithm::ES256) {
            Ok(true) => self.judge(json(payload, VerifyError::Claims)?, now),
            Ok(false) | Err(_) => Err(VerifyError::Signature),
        }
    }

    fn judge(&self, claims: VerifiedClaims, now: Timestamp) -> Result<VerifiedClaims, VerifyError> {
        let (earliest, latest) = (now.minus(LEEWAY).unix_seconds(), now.plus(LEEWAY).unix_seconds());
        if claims.iss != self.issuer {
            Err(VerifyError::Issuer)
        } else if claims.aud != self.audience {
            Err(VerifyError::Audience)
        } else if claims.exp <= earliest {
            Err(VerifyError::Expired)
        } else if claims.nbf > latest || claims.iat > latest {
            Err(VerifyError::NotYetValid)
        } else if claims.exp.saturating_sub(claims.iat) > MAX_LIFETIME_SECONDS {
            Err(VerifyError::Lifetime)
        } else if claims.sub.is_empty() || claims.jti.is_empty() || claims.sid.is_empty() {
            Err(VerifyError::Claims)
        } else {
            Ok(claims)
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JoseHeader {
    alg: String,
    typ: String,
    kid: String,
}

#[derive(Deserialize)]
struct JwkSet {
    keys: Vec<Jwk>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    crv: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    kid: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl Jwk {
    fn into_key(self) -> Option<(String, DecodingKey)> {
        let usable = self.kty == "EC"
            && self.crv.as_deref() == Some("P-256")
            && self.alg.is_none_or(|alg| alg == "ES256")
            && self.usage.is_none_or(|usage| usage == "sig");
        let x = URL_SAFE_NO_PAD.decode(self.x?).ok().filter(|x| x.len() == 32)?;
        let y = URL_SAFE_NO_PAD.decode(self.y?).ok().filter(|y| y.len() == 32)?;
        usable.then_some((self.kid?, DecodingKey::from_ec_der(&[&[4], x.as_slice(), &y].concat())))
    }
}

/// The JSON object of one segment. A member that comes twice is refused, unknown ones included only where the type
/// says so.
fn json<T: DeserializeOwned>(segment: &str, error: VerifyError) -> Result<T, VerifyError> {
    let bytes = URL_SAFE_NO_PAD.decode(segment).map_err(|_| VerifyError::Malformed)?;
    // serde would fill a struct from a list, too, in the order of its fields.
    if bytes.first() != Some(&b'{') {
        return Err(error);
    }
    serde_json::from_slice(&bytes).map_err(|_| error)
}

#[cfg(test)]
pub(in crate::assertion) mod tests {
    use ring::hmac;
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
    use serde_json::{Value, json};

    use super::*;
    use crate::assertion::provider::SigningHandle;
    use crate::assertion::{Assertion, Claims, Signer};
    use crate::entropy::SeededEntropy;
    use crate::secret::SecretBytes;

    const ISSUER: &str = "https://admin.example.jp";
    const AUDIENCE: &str = "https://console.internal";

    pub(in crate::assertion) fn now() -> Timestamp {
        Timestamp::from_unix_millis(1_795_530_117_042)
    }

    fn pkcs8() -> Vec<u8> {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
        document.unwrap().as_ref().to_vec()
    }

    pub(in crate::assertion) fn signer() -> Signer {
        Signer::new(&SecretBytes::new(pkcs8()), &[]).unwrap()
    }

    pub(in crate::assertion) fn signed_at(signer: &Signer, at: Timestamp) -> Assertion {
        let claims = Claims { audience: AUDIENCE, subject: "5f0c", sid: "c2lk", auth_time: at, with_pin: false };
        signer.sign(ISSUER, &claims, &SeededEntropy::new(1), at).unwrap()
    }

    fn verifier(signer: &Signer) -> AssertionVerifier {
        let jwks = String::from_utf8(signer.jwks().0.to_vec()).unwrap();
        AssertionVerifier::new(&jwks, ISSUER, AUDIENCE).unwrap()
    }

    fn text(assertion: &Assertion) -> String {
        assertion.value().to_str().unwrap().to_owned()
    }

    #[test]
    fn what_the_signer_signs_verifies() {
        let signer = signer();
        let assertion = signed_at(&signer, now());
        assert!(assertion.value().is_sensitive());
        let claims = verifier(&signer).verify(&text(&assertion), now()).unwrap();
        assert_eq!((claims.iss.as_str(), claims.aud.as_str(), claims.sub.as_str()), (ISSUER, AUDIENCE, "5f0c"));
        assert_eq!((claims.iat, claims.nbf, claims.exp), (1_795_530_117, 1_795_530_117, 1_795_530_177));
        assert_eq!((claims.acr.as_str(), claims.amr), ("urn:sekisho:acr:device", vec!["carrier".to_owned()]));
        let header: Value =
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text(&assertion).split('.').next().unwrap()).unwrap())
                .unwrap();
        assert_eq!(header, json!({"alg": "ES256", "typ": "sekisho-assertion+jwt", "kid": signer.kid()}));
    }

    #[test]
    fn two_assertions_have_two_ids() {
        let (signer, entropy) = (signer(), SeededEntropy::new(1));
        let claims = Claims { audience: AUDIENCE, subject: "5f0c", sid: "c2lk", auth_time: now(), with_pin: false };
        let jti = || {
            let assertion = signer.sign(ISSUER, &claims, &entropy, now()).unwrap();
            verifier(&signer).verify(&text(&assertion), now()).unwrap().jti
        };
        assert_ne!(jti(), jti());
    }

    #[test]
    fn an_assertion_lives_for_a_minute_and_the_leeway() {
        let signer = signer();
        let token = text(&signed_at(&signer, now()));
        for (seconds, expected) in [
            (-31, Some(VerifyError::NotYetValid)),
            (-30, None),
            (0, None),
            (60, None),
            (89, None),
            (90, Some(VerifyError::Expired)),
            (86_400, Some(VerifyError::Expired)),
        ] {
            let at = Timestamp::from_unix_millis(now().unix_millis() + seconds * 1000);
            assert_eq!(verifier(&signer).verify(&token, at).err(), expected, "after {seconds} s");
        }
    }

    #[test]
    fn published_keys_other_than_the_active_one_verify_too() {
        let (old, new) = (SecretBytes::new(pkcs8()), SecretBytes::new(pkcs8()));
        let (before, after) = (Signer::new(&old, &[&new]).unwrap(), Signer::new(&new, &[&old]).unwrap());
        assert_ne!(before.kid(), after.kid());
        let token = text(&signed_at(&before, now()));
        assert!(verifier(&after).verify(&token, now()).is_ok());
        let alone = Signer::new(&new, &[]).unwrap();
        assert_eq!(verifier(&alone).verify(&token, now()), Err(VerifyError::UnknownKey));
    }

    /// One hostile token: the header and claims of a good one, changed, and how it is signed.
    struct Forge {
        key: SigningHandle,
        header: Value,
        claims: Value,
    }

    impl Forge {
        fn es256(&self) -> String {
            self.es256_of(&self.header.to_string(), &self.claims.to_string())
        }

        fn es256_of(&self, header: &str, claims: &str) -> String {
            let message = message(header, claims);
            let key = self.key.encoding_key();
            let signature = jsonwebtoken::crypto::sign(message.as_bytes(), key, Algorithm::ES256).unwrap();
            format!("{message}.{signature}")
        }

        fn header(mut self, name: &str, value: Value) -> String {
            self.header[name] = value;
            self.es256()
        }

        fn claim(mut self, name: &str, value: Value) -> String {
            self.claims[name] = value;
            self.es256()
        }

        fn without(mut self, part: &str, name: &str) -> String {
            let object = if part == "header" { &mut self.header } else { &mut self.claims };
            object.as_object_mut().unwrap().remove(name).unwrap();
            self.es256()
        }
    }

    fn message(header: &str, claims: &str) -> String {
        format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims))
    }

    /// Every row starts from a token that verifies (the first row), and differs from it in the one way it is named by.
    #[test]
    #[expect(clippy::too_many_lines, reason = "a row for each token")]
    fn hostile_tokens_are_refused() {
        use VerifyError::{Audience, Claims, Expired, Header, Issuer, Lifetime, Malformed, NotYetValid};
        use VerifyError::{Signature, UnknownKey};
        let pkcs8 = pkcs8();
        let signer = Signer::new(&SecretBytes::new(pkcs8.clone()), &[]).unwrap();
        let verifier = verifier(&signer);
        let jwks: Value = serde_json::from_slice(&signer.jwks().0).unwrap();
        let forge_with = |pkcs8: &[u8]| {
            let random = SystemRandom::new();
            let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8, &random).unwrap();
            let at = now().unix_seconds();
            Forge {
                key: SigningHandle::new(key),
                header: json!({"alg": "ES256", "typ": TYPE, "kid": signer.kid()}),
                claims: json!({
                    "iss": ISSUER, "aud": AUDIENCE, "sub": "5f0c", "iat": at, "nbf": at, "exp": at + 60,
                    "jti": "anRp", "sid": "c2lk", "auth_time": at, "acr": "urn:sekisho:acr:device", "amr": ["carrier"],
                }),
            }
        };
        let forge = || forge_with(&pkcs8);
        let good = forge().es256();
        let [header, payload, signature] = good.split('.').collect::<Vec<_>>().try_into().unwrap();
        let unsigned = |alg: &str| {
            let mut forge = forge();
            forge.header["alg"] = alg.into();
            message(&forge.header.to_string(), &forge.claims.to_string())
        };
        let hmac_with = |secret: &[u8]| {
            let message = unsigned("HS256");
            let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
            format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag))
        };
        let point = [
            vec![4],
            URL_SAFE_NO_PAD.decode(jwks["keys"][0]["x"].as_str().unwrap()).unwrap(),
            URL_SAFE_NO_PAD.decode(jwks["keys"][0]["y"].as_str().unwrap()).unwrap(),
        ]
        .concat();
        let richer = message(&forge().header.to_string(), &{
            let mut claims = forge().claims;
            claims["sub"] = "root".into();
            claims.to_string()
        });
        let twice = |name: &str, json: &Value| json.to_string().replacen('{', &format!("{{\"{name}\":\"x\","), 1);
        let at = now().unix_seconds();
        let header_list = json!(["ES256", TYPE, signer.kid()]).to_string();
        let device = "urn:sekisho:acr:device";
        let claim_list = json!([ISSUER, AUDIENCE, "5f0c", at, at, at + 60, "anRp", "c2lk", at, device, ["carrier"]]);
        let claim_list = claim_list.to_string();
        let stray = |segment: &str| {
            // The last character of a signature holds four bits that must be zero.
            let last = segment.chars().last().unwrap();
            format!("{}{}", &segment[..segment.len() - 1], char::from_u32(u32::from(last) + 1).unwrap())
        };

        let rows: Vec<(&str, String, Option<VerifyError>)> = vec![
            ("as signed", good.clone(), None),
            ("an unknown claim is allowed", forge().claim("roles", json!(["ops"])), None),
            // shape
            ("empty", String::new(), Some(Malformed)),
            ("dots alone", "..".into(), Some(Header)),
            ("one segment", header.into(), Some(Malformed)),
            ("two segments", format!("{header}.{payload}"), Some(Malformed)),
            ("four segments", format!("{good}.{signature}"), Some(Signature)),
            ("five segments, as JWE", format!("{good}.a.b"), Some(Signature)),
            ("no signature", format!("{header}.{payload}."), Some(Signature)),
            ("padded header", format!("{header}=.{payload}.{signature}"), Some(Malformed)),
            ("padded payload", format!("{header}.{payload}=.{signature}"), Some(Signature)),
            ("padded signature", format!("{good}=="), Some(Signature)),
            ("stray bits in the signature", format!("{header}.{payload}.{}", stray(signature)), Some(Signature)),
            ("standard base64 header", format!("+/+/.{payload}.{signature}"), Some(Malformed)),
            ("white space around", format!(" {good} "), Some(Malformed)),
            ("two tokens", format!("{good},{good}"), Some(Signature)),
            ("oversized", forge().claim("pad", json!("x".repeat(4096))), Some(Malformed)),
            ("JSON serialization", json!({"payload": payload, "signature": signature}).to_string(), Some(Malformed)),
            ("header is no object", format!("{}.{payload}.{signature}", URL_SAFE_NO_PAD.encode("[]")), Some(Header)),
            ("header as a list", forge().es256_of(&header_list, &forge().claims.to_string()), Some(Header)),
            // algorithm and key
            ("alg none, no signature", format!("{}.", unsigned("none")), Some(Header)),
            ("alg None, no signature", format!("{}.", unsigned("None")), Some(Header)),
            ("alg none, old signature", format!("{}.{signature}", unsigned("none")), Some(Header)),
            ("HS256 with the public point", hmac_with(&point), Some(Header)),
            ("HS256 with the JWKS", hmac_with(&signer.jwks().0), Some(Header)),
            ("HS256 with the kid", hmac_with(signer.kid().unwrap().as_bytes()), Some(Header)),
            ("alg ES384", forge().header("alg", json!("ES384")), Some(Header)),
            ("alg es256", forge().header("alg", json!("es256")), Some(Header)),
            ("no alg", forge().without("header", "alg"), Some(Header)),
            ("unknown kid", forge().header("kid", json!("other")), Some(UnknownKey)),
            ("kid as a path", forge().header("kid", json!("../../dev/null")), Some(UnknownKey)),
            ("no kid", forge().without("header", "kid"), Some(Header)),
            ("kid is null", forge().header("kid", Value::Null), Some(Header)),
            ("another key under our kid", forge_with(&self::pkcs8()).es256(), Some(Signature)),
            ("signature of zeros", format!("{header}.{payload}.{}", URL_SAFE_NO_PAD.encode([0; 64])), Some(Signature)),
            ("half a signature", format!("{header}.{payload}.{}", &signature[..43]), Some(Signature)),
            ("another subject under our signature", format!("{richer}.{signature}"), Some(Signature)),
            ("payload cut short", format!("{header}.{}.{signature}", &payload[..payload.len() - 4]), Some(Signature)),
            // header members
            ("typ JWT", forge().header("typ", json!("JWT")), Some(Header)),
            ("typ in another case", forge().header("typ", json!("Sekisho-Assertion+JWT")), Some(Header)),
            ("no typ", forge().without("header", "typ"), Some(Header)),
            ("jku", forge().header("jku", json!("https://evil.example/jwks.json")), Some(Header)),
            ("jwk", forge().header("jwk", jwks["keys"][0].clone()), Some(Header)),
            ("x5u", forge().header("x5u", json!("https://evil.example/cert.pem")), Some(Header)),
            ("x5c", forge().header("x5c", json!(["MIIB"])), Some(Header)),
            ("crit", forge().header("crit", json!(["exp"])), Some(Header)),
            ("empty crit", forge().header("crit", json!([])), Some(Header)),
            ("b64 false", forge().header("b64", json!(false)), Some(Header)),
            ("zip", forge().header("zip", json!("DEF")), Some(Header)),
            ("alg twice", forge().es256_of(&twice("alg", &forge().header), &forge().claims.to_string()), Some(Header)),
            // claims
            ("another issuer", forge().claim("iss", json!("https://evil.example")), Some(Issuer)),
            ("issuer with a slash", forge().claim("iss", json!(format!("{ISSUER}/"))), Some(Issuer)),
            ("no iss", forge().without("claims", "iss"), Some(Claims)),
            ("another audience", forge().claim("aud", json!("https://other.internal")), Some(Audience)),
            ("audience as a list", forge().claim("aud", json!([AUDIENCE])), Some(Claims)),
            ("audience as a list of two", forge().claim("aud", json!([AUDIENCE, "x"])), Some(Claims)),
            ("no aud", forge().without("claims", "aud"), Some(Claims)),
            ("aud twice", forge().es256_of(&forge().header.to_string(), &twice("aud", &forge().claims)), Some(Claims)),
            ("no sub", forge().without("claims", "sub"), Some(Claims)),
            ("empty sub", forge().claim("sub", json!("")), Some(Claims)),
            ("sub is a number", forge().claim("sub", json!(1)), Some(Claims)),
            ("no exp", forge().without("claims", "exp"), Some(Claims)),
            ("exp is text", forge().claim("exp", json!((at + 60).to_string())), Some(Claims)),
            ("exp is a fraction", forge().claim("exp", json!(1.0e300)), Some(Claims)),
            ("expired", forge().claim("exp", json!(at - 30)), Some(Expired)),
            ("expired at the beginning of time", forge().claim("exp", json!(i64::MIN)), Some(Expired)),
            ("never expires", forge().claim("exp", json!(i64::MAX)), Some(Lifetime)),
            ("lives for a day", forge().claim("exp", json!(at + 86_400)), Some(Lifetime)),
            ("issued at the beginning of time", forge().claim("iat", json!(i64::MIN)), Some(Lifetime)),
            ("no iat", forge().without("claims", "iat"), Some(Claims)),
            ("issued in the future", forge().claim("iat", json!(at + 31)), Some(NotYetValid)),
            ("no nbf", forge().without("claims", "nbf"), Some(Claims)),
            ("valid in the future", forge().claim("nbf", json!(at + 31)), Some(NotYetValid)),
            ("no jti", forge().without("claims", "jti"), Some(Claims)),
            ("no sid", forge().without("claims", "sid"), Some(Claims)),
            ("no acr", forge().without("claims", "acr"), Some(Claims)),
            ("claims are no object", forge().es256_of(&forge().header.to_string(), "[]"), Some(Claims)),
            ("claims as a list", forge().es256_of(&forge().header.to_string(), &claim_list), Some(Claims)),
        ];
        for (name, token, expected) in rows {
            assert_eq!(verifier.verify(&token, now()).err(), expected, "{name}");
        }
    }

    #[test]
    fn only_usable_keys_of_a_jwks_are_taken() {
        let signer = signer();
        let token = text(&signed_at(&signer, now()));
        let good: Value = serde_json::from_slice(&signer.jwks().0).unwrap();
        let changed = |name: &str, value: Value| {
            let mut jwks = good.clone();
            jwks["keys"][0][name] = value;
            jwks
        };
        let twice = json!({"keys": [good["keys"][0], good["keys"][0]]});
        for (name, jwks, expected) in [
            ("as published", good.clone(), Ok(())),
            ("no alg, no use", changed("alg", Value::Null), Ok(())),
            ("for encryption", changed("use", json!("enc")), Err(VerifyError::UnknownKey)),
            ("ES512", changed("alg", json!("ES512")), Err(VerifyError::UnknownKey)),
            ("P-384", changed("crv", json!("P-384")), Err(VerifyError::UnknownKey)),
            ("oct", changed("kty", json!("oct")), Err(VerifyError::UnknownKey)),
            ("short x", changed("x", json!("AAAA")), Err(VerifyError::UnknownKey)),
            ("not on the curve", changed("y", good["keys"][0]["x"].clone()), Err(VerifyError::Signature)),
            ("no kid", changed("kid", Value::Null), Err(VerifyError::UnknownKey)),
            ("no keys", json!({"keys": []}), Err(VerifyError::UnknownKey)),
        ] {
            let verifier = AssertionVerifier::new(&jwks.to_string(), ISSUER, AUDIENCE).unwrap();
            assert_eq!(verifier.verify(&token, now()).map(|_| ()), expected, "{name}");
        }
        for jwks in [json!([]), json!({}), json!({"keys": {}}), twice] {
            assert!(AssertionVerifier::new(&jwks.to_string(), ISSUER, AUDIENCE).is_err(), "{jwks}");
        }
    }
}
