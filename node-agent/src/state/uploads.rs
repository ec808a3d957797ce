//! Multipart uploads that are under way: what a crash leaves behind at the remote is aborted by the next run.

use futures::FutureExt as _;
use futures::future::BoxFuture;
use onespace_core::mapping::MappingId;
use onespace_core::plan::Stop;
use onespace_stores::remote::{RemoteError, UploadLog};
use rusqlite::params;

use super::{State, StateError};
use crate::stop::{as_pause, from_state};

pub(super) const SCHEMA: &str = "
CREATE TABLE upload (
    mapping TEXT NOT NULL, id TEXT NOT NULL, key TEXT NOT NULL,
    PRIMARY KEY (mapping, id)) WITHOUT ROWID;
";

/// The uploads of one mapping.
#[derive(Clone, Debug)]
pub struct Uploads {
    /// Where they are noted.
    pub state: State,
    /// Whose they are.
    pub mapping: MappingId,
}

impl UploadLog for Uploads {
    fn begun<'a>(&'a self, key: &'a str, upload: &'a str) -> BoxFuture<'a, Result<(), RemoteError>> {
        async move {
            let recorded = self.state.upload_begun(&self.mapping, key, upload).await;
            recorded.map_err(|error| {
                let pause = as_pause(from_state(&error));
                RemoteError::Paused {
                    reason: pause.reason,
                    code: pause.code,
                    message: pause.message,
                    retry_after: pause.retry_after,
                }
            })
        }
        .boxed()
    }

    fn ended<'a>(&'a self, _key: &'a str, upload: &'a str) -> BoxFuture<'a, ()> {
        async move {
            // One that stays noted is aborted once more, which does no harm.
            if let Err(error) = self.state.upload_ended(&self.mapping, upload).await
                && let Stop::Pause(pause) = from_state(&error)
            {
                tracing::warn!("an upload that has ended stays noted: {}", pause.message);
            }
        }
        .boxed()
    }
}

impl State {
    async fn upload_begun(&self, mapping: &MappingId, key: &str, upload: &str) -> Result<(), StateError> {
        let (mapping, key, upload) = (mapping.0.clone(), key.to_owned(), upload.to_owned());
        self.run(move |sql| {
            sql.prepare_cached("INSERT OR REPLACE INTO upload (mapping, id, key) VALUES (?, ?, ?)")?
                .execute(params![mapping, upload, key])
                .map(|_| ())
        })
        .await
    }

    async fn upload_ended(&self, mapping: &MappingId, upload: &str) -> Result<(), StateError> {
        let (mapping, upload) = (mapping.0.clone(), upload.to_owned());
        self.run(move |sql| {
            sql.prepare_cached("DELETE FROM upload WHERE mapping = ? AND id = ?")?
                .execute(params![mapping, upload])
                .map(|_| ())
        })
        .await
    }

    /// Uploads of a mapping that were begun and have not ended, at most so many: key and id.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn uploads(
        &self,
        mapping: &MappingId,
        limit: u32,
    ) -> Result<Vec<(String, String)>, StateError> {
        let mapping = mapping.0.clone();
        self.read(move |sql| {
            sql.prepare_cached("SELECT key, id FROM upload WHERE mapping = ? LIMIT ?")?
                .query_map(params![mapping, limit], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect()
        })
        .await
    }
}
