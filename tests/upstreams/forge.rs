//! Tokens that differ from a genuine one in one way, signed with keys that are kept in `tests/data`.

use std::cell::RefCell;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::hmac;
use ring::rand::SystemRandom;
use ring::rsa;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED, ECDSA_P384_SHA384_FIXED_SIGNING,
    EcdsaKeyPair, EcdsaSigningAlgorithm, EcdsaVerificationAlgorithm, KeyPair as _, RSA_PKCS1_SHA256, UnparsedPublicKey,
};
use sekisho::assertion::{Claims, Signer};
use sekisho::clock::Timestamp;
use sekisho::entropy::SeededEntropy;
use sekisho::secret::SecretBytes;
use serde::Deserialize;
use serde_json::{Value, json};

pub(crate) const ISSUER: &str = "https://admin.example.jp";
pub(crate) const AUDIENCE: &str = "https://console.internal";
/// 2026-11-24T00:00:00Z, in seconds since the Unix epoch.
pub(crate) const NOW: i64 = 1_795_478_400;
/// How long before [`NOW`] most tokens were signed.
pub(crate) const AGE: i64 = 10;

/// DER of a `SubjectPublicKeyInfo` for P-256 up to the point (RFC 5480).
const SPKI_OF_P256: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    #[serde(rename = "about")]
    _about: String,
    current: String,
    next: String,
    stranger: String,
    stranger_p384: String,
    stranger_rsa: String,
    stranger_certificate: String,
}

/// An ECDSA key, and how its signatures are checked.
pub(crate) struct Key {
    pair: EcdsaKeyPair,
    verification: &'static EcdsaVerificationAlgorithm,
}

impl Key {
    fn p256(pkcs8: &[u8]) -> Self {
        Self::new(&ECDSA_P256_SHA256_FIXED_SIGNING, &ECDSA_P256_SHA256_FIXED, pkcs8)
    }

    fn new(
        signing: &'static EcdsaSigningAlgorithm,
        verification: &'static EcdsaVerificationAlgorithm,
        pkcs8: &[u8],
    ) -> Self {
        let pair = EcdsaKeyPair::from_pkcs8(signing, pkcs8, &SystemRandom::new()).unwrap();
        Self { pair, verification }
    }

    fn point(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    /// As a `SubjectPublicKeyInfo` in PEM, the form in which public keys lie about on servers.
    pub(crate) fn pem(&self) -> String {
        let spki = STANDARD.encode([&SPKI_OF_P256, self.point()].concat());
        let (first, second) = spki.split_at(64);
        format!("-----BEGIN PUBLIC KEY-----\n{first}\n{second}\n-----END PUBLIC KEY-----\n")
    }

    pub(crate) fn jwk(&self) -> Value {
        let (x, y) = self.point()[1..].split_at(32);
        json!({"kty": "EC", "crv": "P-256", "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y)})
    }

    fn believes(&self, message: &str, signature: &str) -> bool {
        let key = UnparsedPublicKey::new(self.verification, self.point());
        URL_SAFE_NO_PAD.decode(signature).is_ok_and(|signature| key.verify(message.as_bytes(), &signature).is_ok())
    }
}

/// Makes tokens.
///
/// ECDSA signatures of ring differ each time. One that is known already for the same message is used again if it
/// verifies: so the file that is made anew from an unchanged table is the stored one, byte for byte.
pub(crate) struct Forge {
    /// Tokens of the stored file, and those that were made since.
    tokens: RefCell<Vec<String>>,
    pub(crate) current: Key,
    pub(crate) next: Key,
    pub(crate) stranger: Key,
    pub(crate) stranger_p384: Key,
    stranger_rsa: rsa::KeyPair,
    /// A certificate of the stranger for its own key, DER in base64, as `x5c` has it.
    pub(crate) stranger_certificate: String,
    current_signer: Signer,
    next_signer: Signer,
}

impl Forge {
    /// With the tokens of the stored file.
    pub(crate) fn new(stored: Vec<String>) -> Self {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/assertion-keys.json");
        let keys: KeyFile = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        let bytes = |text: &str| STANDARD.decode(text).unwrap();
        let (current, next) = (bytes(&keys.current), bytes(&keys.next));
        let secret = |bytes: &[u8]| SecretBytes::new(bytes.to_vec());
        Self {
            tokens: RefCell::new(stored),
            current: Key::p256(&current),
            next: Key::p256(&next),
            stranger: Key::p256(&bytes(&keys.stranger)),
            stranger_p384: Key::new(
                &ECDSA_P384_SHA384_FIXED_SIGNING,
                &ECDSA_P384_SHA384_FIXED,
                &bytes(&keys.stranger_p384),
            ),
            stranger_rsa: rsa::KeyPair::from_pkcs8(&bytes(&keys.stranger_rsa)).unwrap(),
            stranger_certificate: keys.stranger_certificate,
            current_signer: Signer::new(&secret(&current), &[&secret(&next)]).unwrap(),
            next_signer: Signer::new(&secret(&next), &[&secret(&current)]).unwrap(),
        }
    }

    /// The document with both published keys, as the gateway serves it.
    pub(crate) fn jwks(&self) -> Value {
        serde_json::from_slice(&self.current_signer.jwks().0).unwrap()
    }

    /// The `kid` of the key that signs, and of the one that is published beside it.
    pub(crate) fn kids(&self) -> (&str, &str) {
        (self.current_signer.kid().unwrap(), self.next_signer.kid().unwrap())
    }

    /// What the gateway writes, by its own code.
    pub(crate) fn genuine(&self) -> String {
        self.by_signer(&self.current_signer, &self.current)
    }

    /// What it writes once the next key signs.
    pub(crate) fn genuine_by_next(&self) -> String {
        self.by_signer(&self.next_signer, &self.next)
    }

    fn by_signer(&self, signer: &Signer, key: &Key) -> String {
        let at = |seconds: i64| Timestamp::from_unix_millis(seconds * 1000);
        let claims = Claims {
            audience: AUDIENCE,
            subject: "Zk9xQ1VoT3pMbVd5dEJhUg",
            sid: "c2lkLW9mLW9uZS1zZXNzaW9u",
            auth_time: at(NOW - 600),
            with_pin: false,
        };
        let assertion = signer.sign(ISSUER, &claims, &SeededEntropy::new(1), at(NOW - AGE)).unwrap();
        let fresh = assertion.value().to_str().unwrap();
        let (message, signature) = fresh.rsplit_once('.').unwrap();
        self.with_signature(key, message, || signature.to_owned())
    }

    /// The header and claims that tables change.
    pub(crate) fn header(&self) -> Value {
        json!({"alg": "ES256", "typ": "sekisho-assertion+jwt", "kid": self.kids().0})
    }

    pub(crate) fn claims() -> Value {
        let at = NOW - AGE;
        json!({
            "iss": ISSUER, "aud": AUDIENCE, "sub": "Zk9xQ1VoT3pMbVd5dEJhUg", "iat": at, "nbf": at, "exp": at + 60,
            "jti": "anRpLW9mLW9uZS10b2tlbg", "sid": "c2lkLW9mLW9uZS1zZXNzaW9u", "auth_time": NOW - 600,
            "acr": "urn:sekisho:acr:device", "amr": ["carrier"],
        })
    }

    /// `header` and `claims` as a token that `key` signed, whatever the header says.
    pub(crate) fn signed(&self, key: &Key, header: &Value, claims: &Value) -> String {
        self.signed_text(key, &header.to_string(), &claims.to_string())
    }

    pub(crate) fn signed_text(&self, key: &Key, header: &str, claims: &str) -> String {
        let message = message(header, claims);
        self.with_signature(key, &message, || {
            URL_SAFE_NO_PAD.encode(key.pair.sign(&SystemRandom::new(), message.as_bytes()).unwrap())
        })
    }

    pub(crate) fn signed_by_rsa(&self, header: &Value, claims: &Value) -> String {
        let message = message(&header.to_string(), &claims.to_string());
        let mut signature = vec![0; self.stranger_rsa.public().modulus_len()];
        self.stranger_rsa.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message.as_bytes(), &mut signature).unwrap();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// Does `token` bear a signature of a published key that verifies, once taken apart as RFC 7515 says?
    pub(crate) fn is_signed(&self, token: &str) -> bool {
        let Some((message, signature)) = token.rsplit_once('.') else { return false };
        [&self.current, &self.next].iter().any(|key| key.believes(message, signature))
    }

    fn with_signature(&self, key: &Key, message: &str, fresh: impl FnOnce() -> String) -> String {
        let mut tokens = self.tokens.borrow_mut();
        let signature_in = |token: &String| Some(token.strip_prefix(message)?.strip_prefix('.')?.to_owned());
        let known = tokens.iter().filter_map(signature_in).find(|signature| key.believes(message, signature));
        let token = format!("{message}.{}", known.unwrap_or_else(fresh));
        tokens.push(token.clone());
        token
    }
}

pub(crate) fn message(header: &str, claims: &str) -> String {
    format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims))
}

/// HS256 over `message` with `secret`.
pub(crate) fn hs256(secret: &[u8], header: &Value, claims: &Value) -> String {
    let message = message(&header.to_string(), &claims.to_string());
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag))
}

/// The same signature in DER (RFC 3279 §2.2.3), as X.509 and most libraries' own interfaces have it.
pub(crate) fn der(signature: &[u8; 64]) -> Vec<u8> {
    let integer = |half: &[u8]| {
        let digits: Vec<u8> = half.iter().copied().skip_while(|octet| *octet == 0).collect();
        let sign = if digits.first().is_none_or(|first| first & 0x80 != 0) { vec![0] } else { vec![] };
        let value = [sign, digits].concat();
        [vec![2, u8::try_from(value.len()).unwrap()], value].concat()
    };
    let both = [integer(&signature[..32]), integer(&signature[32..])].concat();
    [vec![0x30, u8::try_from(both.len()).unwrap()], both].concat()
}

/// The order of P-256 (SEC 2 §2.4.2).
pub(crate) const ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
    0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

/// (r, n − s): the other signature that verifies wherever (r, s) does.
pub(crate) fn mirrored(signature: &[u8; 64]) -> [u8; 64] {
    let mut mirrored = *signature;
    let mut borrow = 0;
    for at in (0..32).rev() {
        let difference = i16::from(ORDER[at]) - i16::from(signature[32 + at]) - borrow;
        borrow = i16::from(difference < 0);
        mirrored[32 + at] = u8::try_from(difference + 256 * borrow).unwrap();
    }
    mirrored
}
