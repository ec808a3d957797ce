//! The remote: keys with bodies and headers, conditions honoured, trouble where a test wants it.

use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;
use md5::{Digest, Md5};
use onespace_core::reason::{HoldReason, PauseReason};
use onespace_core::remote::{ListedObject, RemoteHeaders, RemoteObject};
use onespace_node_agent::clock::Clock;
use onespace_stores::body::Body;
use onespace_stores::remote::{
    Capabilities, Condition, Page, PartSource, PartSpec, Permissions, Remote, RemoteError, Replaced,
    Stored as Put,
};

use super::World;

/// An object of the remote.
#[derive(Clone, Debug)]
pub struct Stored {
    /// What a HEAD shows.
    pub object: RemoteObject,
    /// The body.
    pub body: Bytes,
}

/// A failure of the remote as a whole.
pub fn paused(reason: PauseReason) -> RemoteError {
    RemoteError::Paused {
        reason,
        code: None,
        message: "the test says so".into(),
        retry_after: None,
    }
}

/// A refusal of one request.
pub fn refused() -> RemoteError {
    RemoteError::Refused {
        reason: HoldReason::Refused,
        code: None,
        message: "the test says so".into(),
    }
}

impl World {
    /// The body at a key.
    pub fn at_remote(&self, key: &str) -> Option<String> {
        let things = self.things();
        let stored = things.remote.get(key)?;
        Some(String::from_utf8(stored.body.to_vec()).unwrap())
    }

    /// A stranger's write.
    pub fn put_at_remote(&self, key: &str, body: &str) {
        let body = Bytes::copy_from_slice(body.as_bytes());
        let headers = RemoteHeaders {
            content_type: Some("text/plain".into()),
            ..RemoteHeaders::default()
        };
        self.keep(key, headers, body);
    }

    fn keep(&self, key: &str, headers: RemoteHeaders, body: Bytes) -> String {
        let etag = hex::encode(Md5::digest(&body));
        let object = RemoteObject {
            etag: etag.clone(),
            opaque_etag: false,
            size: body.len() as u64,
            last_modified: self.clock.now(),
            headers,
            storage_class: None,
        };
        self.things().remote.insert(key.into(), Stored { object, body });
        etag
    }

    async fn ask(&self, verb: &str, key: &str) -> Result<(), RemoteError> {
        // A request takes time: other tasks run meanwhile.
        super::pass(std::time::Duration::from_millis(5)).await;
        let mut things = self.things();
        things.requests.push(format!("{verb} {key}"));
        if things.bucket_is_gone && verb != "HEAD" {
            return Err(paused(PauseReason::NoSuchBucket));
        }
        things.remote_trouble.clone().map_or(Ok(()), Err)
    }

    fn etag_at(&self, key: &str) -> Option<String> {
        let things = self.things();
        things.remote.get(key).map(|stored| stored.object.etag.clone())
    }
}

impl Remote for World {
    async fn head(&self, key: &str) -> Result<Option<RemoteObject>, RemoteError> {
        self.ask("HEAD", key).await?;
        if let Some(trouble) = self.things().head_trouble.get(key) {
            return Err(trouble.clone());
        }
        if self.things().bucket_is_gone {
            return Ok(None);
        }
        Ok(self.things().remote.get(key).map(|stored| stored.object.clone()))
    }

    async fn get(
        &self,
        key: &str,
        _range: Option<(u64, u64)>,
    ) -> Result<Option<(RemoteObject, Body)>, RemoteError> {
        self.ask("GET", key).await?;
        let found = self.things().remote.get(key).cloned();
        Ok(found.map(|stored| (stored.object, Body::from_bytes(stored.body))))
    }

    async fn put(
        &self,
        key: &str,
        headers: &RemoteHeaders,
        condition: &Condition,
        body: Body,
        _md5: Option<[u8; 16]>,
    ) -> Result<Put, RemoteError> {
        let bytes: BytesMut = body
            .stream
            .try_collect::<Vec<_>>()
            .await?
            .into_iter()
            .flatten()
            .collect();
        let slow = self.things().slow_puts.get(key).copied();
        if let Some(time) = slow {
            super::pass(time).await;
        }
        self.ask("PUT", key).await?;
        if let Some(trouble) = self.things().put_trouble.get(key) {
            return Err(trouble.clone());
        }
        let allowed = match (condition, self.etag_at(key)) {
            (Condition::Absent, there) => there.is_none(),
            (Condition::Matches(etag), there) => there.as_ref() == Some(etag),
            (Condition::None, _) => true,
        };
        if !allowed {
            return Err(RemoteError::ConditionFailed);
        }
        let etag = self.keep(key, headers.clone(), bytes.freeze());
        Ok(Put {
            sent_etag: etag.clone(),
            etag,
        })
    }

    async fn put_parts<P: PartSource>(
        &self,
        key: &str,
        headers: &RemoteHeaders,
        condition: &Condition,
        parts: &[PartSpec],
        source: &P,
    ) -> Result<Put, RemoteError> {
        let mut whole = BytesMut::new();
        for part in 0..parts.len() {
            let body = source.open(part).await?;
            for piece in body.stream.try_collect::<Vec<_>>().await? {
                whole.extend_from_slice(&piece);
            }
        }
        let meanwhile = self.things().while_uploading.take();
        if let Some((container, name, body)) = meanwhile {
            self.store(&container, &name, &body);
        }
        let body = Body::from_bytes(whole.freeze());
        let Put { etag, .. } = Remote::put(self, key, headers, condition, body, None).await?;
        let etag = format!("{etag}-{}", parts.len());
        if let Some(stored) = self.things().remote.get_mut(key) {
            stored.object.etag.clone_from(&etag);
        }
        Ok(Put {
            sent_etag: etag.clone(),
            etag,
        })
    }

    async fn replace_headers(
        &self,
        key: &str,
        current: &RemoteObject,
        headers: &RemoteHeaders,
    ) -> Result<Replaced, RemoteError> {
        self.ask("COPY", key).await?;
        match self.things().remote.get_mut(key) {
            Some(stored) if stored.object.etag == current.etag => {
                stored.object.headers = headers.clone();
                Ok(Replaced::Done(current.etag.clone()))
            }
            _ => Err(RemoteError::ConditionFailed),
        }
    }

    async fn abort_upload(&self, _key: &str, _upload: &str) -> Result<(), RemoteError> {
        Ok(())
    }

    async fn delete(&self, key: &str, etag: Option<&str>) -> Result<(), RemoteError> {
        self.ask("DELETE", key).await?;
        if etag.is_some() && self.etag_at(key).as_deref() != etag {
            return Err(RemoteError::ConditionFailed);
        }
        self.things().remote.remove(key);
        Ok(())
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, RemoteError> {
        self.ask("LIST", prefix).await?;
        let things = self.things();
        if let Some(trouble) = &things.list_trouble {
            return Err(trouble.clone());
        }
        let mut keys = things.remote.iter().filter(|(key, _)| {
            key.starts_with(prefix)
                && !things.hidden.contains(*key)
                && after.is_none_or(|after| key.as_str() > after)
        });
        let listed = |(key, stored): (&String, &Stored)| ListedObject {
            key: key.clone(),
            etag: stored.object.etag.clone(),
            size: stored.object.size,
            last_modified: stored.object.last_modified,
        };
        let objects = keys.by_ref().take(limit).map(listed).collect();
        Ok(Page {
            objects,
            more: keys.next().is_some(),
        })
    }

    async fn probe(&self, scratch_prefix: &str) -> Result<(Capabilities, Permissions), RemoteError> {
        self.things().probes += 1;
        self.ask("PROBE", scratch_prefix).await?;
        let capabilities = Capabilities {
            put_if_absent: true,
            put_if_match: true,
            delete_if_match: true,
            list_v2: true,
            ..Capabilities::default()
        };
        Ok((capabilities, Permissions::default()))
    }
}
