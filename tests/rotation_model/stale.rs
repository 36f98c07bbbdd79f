//! The worker that must not be: it takes the list of records first, and does not look at each one again.

use std::rc::Rc;

use ring::{hkdf, hmac};
use rusqlite::Connection;
use sekisho::binding::{BindingDigest, KeyId};
use sekisho::store::{KeyPurpose, KeyState, KeyStore as _, RotationStore as _};

use crate::turns::Actor;
use crate::world::World;

/// Wraps each record of a list that it took at its beginning, as it finds it by then, under the active key.
pub(crate) fn drive(world: &Rc<World>) -> Actor {
    let world = Rc::clone(world);
    Actor::new(true, async move |turn| {
        let keys = world.store.keys().await.unwrap().keys;
        let active = keys.iter().find(|key| key.purpose == KeyPurpose::Binding && key.state == KeyState::Active);
        let active = active.unwrap().id.clone();
        // What it wrote before may not even be a chain.
        let Ok(list) = world.store.wrappable(KeyId::parse(&active).unwrap(), 0, 1000).await else { return };
        world.reload().await;
        let conn = Connection::open(world.path()).unwrap();
        for record in list {
            turn.ends().await;
            let place = i64::try_from(record.position).unwrap();
            let read = "SELECT chain, digest FROM bindings WHERE seq = ?1";
            let found = conn.query_row(read, [place], |row| Ok((row.get::<_, String>(0)?, row.get::<_, Vec<u8>>(1)?)));
            let Ok((chain, digest)) = found else { continue };
            let wrapped = wrap(&active, &digest);
            let folded = BindingDigest::from_bytes(wrapped).fold();
            let write = "UPDATE bindings SET chain = ?2, digest = ?3, folded = ?4, rev = rev + 1 WHERE seq = ?1";
            conn.execute(write, (place, format!("{chain},{active}"), wrapped, folded)).unwrap();
        }
    })
}

/// `wrap(k, d)` of `ARCHITECTURE.md`, "Digests and key states".
fn wrap(key: &str, digest: &[u8]) -> [u8; 32] {
    let number: u8 = key[1..].parse().unwrap();
    let pseudorandom = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&[number; 32]);
    let sub = hmac::Key::from(pseudorandom.expand(&[b"sekisho/wrap/v1"], hmac::HMAC_SHA256).unwrap());
    hmac::sign(&sub, digest).as_ref().try_into().unwrap()
}
