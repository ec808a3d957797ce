//! Unmarked objects that were found equal, and are ours since.

use onespace_core::mapping::MappingId;
use rusqlite::{OptionalExtension, params};

use super::{Sql, State, StateError};

/// An unmarked object that was found equal, and is ours since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adopted {
    /// The key.
    pub key: String,
    /// Its ETag then.
    pub etag: String,
}

/// Keys are long and many: the first 16 bytes of a sha256 stand for them.
pub(super) fn key_hash(key: &str) -> Vec<u8> {
    use sha2::Digest;
    sha2::Sha256::digest(key.as_bytes())[..16].to_vec()
}

impl State {
    /// Remembers an unmarked, equal object as ours.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn adopt(&self, mapping: &MappingId, adopted: Adopted) -> Result<(), StateError> {
        let mapping = mapping.0.clone();
        self.run(move |sql| insert_adopted(sql, &mapping, &adopted)).await
    }

    /// The ETag under which the unmarked object at this key was adopted.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn adopted(&self, mapping: &MappingId, key: &str) -> Result<Option<String>, StateError> {
        let (mapping, name) = (mapping.0.clone(), key_hash(key));
        self.read(move |sql| {
            sql.query_row(
                "SELECT etag FROM adopted WHERE mapping = ? AND name = ?",
                params![mapping, name],
                |row| row.get(0),
            )
            .optional()
        })
        .await
    }
}

pub(super) fn insert_adopted(sql: &Sql, mapping: &str, adopted: &Adopted) -> Result<(), rusqlite::Error> {
    sql.prepare_cached("INSERT OR REPLACE INTO adopted (mapping, name, etag) VALUES (?, ?, ?)")?
        .execute(params![mapping, key_hash(&adopted.key), adopted.etag])
        .map(|_| ())
}
