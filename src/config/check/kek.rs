//! Where a key-encryption key is: in a file, a variable, a credential or a token.

use std::time::Duration;

use super::values::Context;
use crate::config::document::join;
use crate::config::raw::{self, Or, Table};
use crate::config::types::{KekSource, TokenKey};

/// Longest label of a token: `CK_TOKEN_INFO.label` (PKCS#11 §3.2).
const TOKEN_LABEL_BYTES: usize = 32;
/// Longest label of a key; the standard sets no bound.
const KEY_LABEL_BYTES: usize = 255;

pub(super) fn source(key: &str, written: raw::Kek, cx: &mut Context) -> Option<KekSource> {
    let Or::Long(Table(raw::KekTable { file, env, credential, pkcs11 })) = written else {
        cx.inline_secret(key);
        return None;
    };
    let secret = raw::SecretTable { file, env, credential };
    let named = [&secret.file, &secret.env, &secret.credential].into_iter().flatten().count();
    match (pkcs11, named) {
        (Some(Table(token)), 0) => token_key(&join(key, "pkcs11"), token, cx).map(KekSource::Token),
        (None, 1) => cx.secret_place(key, secret).map(KekSource::Secret),
        _ => {
            cx.report.missing(key, "must have exactly one of file, env, credential, pkcs11");
            None
        }
    }
}

fn token_key(table: &str, raw: raw::Pkcs11, cx: &mut Context) -> Option<TokenKey> {
    let [module, token, key, pin, timeout] = ["module", "token", "key", "pin", "timeout"].map(|name| join(table, name));
    for (part, missing, what) in [
        (&module, raw.module.is_none(), "write the token's PKCS#11 module, a shared library"),
        (&token, raw.token.is_none(), "write the label of the token"),
        (&key, raw.key.is_none(), "write the label of the AES-256 key in the token"),
        (&pin, raw.pin.is_none(), "write where the user's PIN is, such as { credential = \"kek-pin\" }"),
    ] {
        if missing {
            cx.report.missing(part, format_args!("is missing; {what}"));
        }
    }
    let module = cx.path(&module, raw.module.as_deref());
    let token = cx.read(&token, raw.token.as_deref(), |text| label(text, TOKEN_LABEL_BYTES));
    let key = cx.read(&key, raw.key.as_deref(), |text| label(text, KEY_LABEL_BYTES));
    let pin = raw.pin.and_then(|written| cx.secret(&pin, written));
    let timeout = cx.duration(
        &timeout,
        raw.timeout.as_deref(),
        Duration::from_secs(10),
        Duration::from_millis(100)..=Duration::from_mins(5),
    );
    Some(TokenKey { module: module?, token: token?, key: key?, pin: pin?, timeout })
}

/// A label as it is written on the token. Blanks at its end do not count there: they fill the field.
fn label(text: &str, most: usize) -> Result<String, String> {
    let text = text.trim_end_matches(' ');
    if text.is_empty() {
        Err("must not be empty".to_owned())
    } else if text.chars().any(char::is_control) {
        Err("must be one line without control characters".to_owned())
    } else if text.len() > most {
        Err(format!("must be at most {most} bytes"))
    } else {
        Ok(text.to_owned())
    }
}
