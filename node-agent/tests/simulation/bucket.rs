//! The remote: keys with bodies and headers, conditions honoured or not, requests that fail, come late, or arrive
//! although nobody waits for their answer any more.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;
use md5::{Digest, Md5};
use onespace_core::reason::{HoldReason, PauseReason};
use onespace_core::remote::{ListedObject, RemoteHeaders, RemoteObject};
use onespace_core::timestamp::Timestamp;
use onespace_stores::body::Body;
use onespace_stores::remote::{
    Capabilities, Condition, Page, PartSource, PartSpec, Permissions, Remote, RemoteError, Replaced,
    Stored as Put,
};

use crate::deletes;
use crate::model;
use crate::swift::skewed;
use crate::world::World;

/// An object of the remote.
#[derive(Clone, Debug)]
pub struct Stored {
    /// What a HEAD shows.
    pub object: RemoteObject,
    /// The body.
    pub body: Bytes,
    /// When it was written, in true time.
    pub since: Timestamp,
}

/// The remote.
#[derive(Clone, Debug, Default)]
pub struct Bucket {
    /// Objects by key.
    pub objects: BTreeMap<String, Stored>,
    /// Honours `If-None-Match: *` on PUT.
    pub put_if_absent: bool,
    /// Honours `If-Match` on PUT.
    pub put_if_match: bool,
    /// Honours `If-Match` on DELETE.
    pub delete_if_match: bool,
    /// Keys that listings do not show.
    pub hidden: BTreeSet<String>,
    /// How far its clock is off, seconds.
    pub skew: i64,
    /// Keys at which strangers wrote.
    pub strangers: BTreeSet<String>,
}

impl Bucket {
    /// Puts an object there.
    pub fn store(&mut self, key: &str, headers: RemoteHeaders, body: Bytes, now: Timestamp) -> String {
        let etag = hex::encode(Md5::digest(&body));
        let object = RemoteObject {
            etag: etag.clone(),
            size: body.len() as u64,
            last_modified: Timestamp::from_unix_seconds(skewed(now, self.skew).unix_seconds()),
            headers,
            storage_class: None,
            opaque_etag: false,
        };
        let since = now;
        self.objects.insert(key.into(), Stored { object, body, since });
        etag
    }

    fn etag(&self, key: &str) -> Option<&str> {
        self.objects.get(key).map(|stored| stored.object.etag.as_str())
    }
}

/// The remote as one agent reaches it.
#[derive(Clone, Debug)]
pub struct AgentsRemote {
    /// The world.
    pub world: World,
    /// Which agent.
    pub agent: usize,
}

/// What becomes of a request.
struct Fate {
    there: Duration,
    back: Duration,
    before: Option<RemoteError>,
    after: Option<RemoteError>,
}

/// A failure of the remote as a whole.
fn paused(reason: PauseReason) -> RemoteError {
    RemoteError::Paused {
        reason,
        code: None,
        message: "the simulation says so".into(),
        retry_after: (reason == PauseReason::SlowDown).then_some(Duration::from_secs(1)),
    }
}

impl AgentsRemote {
    fn fate(&self, key: &str) -> Fate {
        use PauseReason as P;
        let mut shared = self.world.shared();
        shared.requests += 1;
        let trouble = shared.trouble.clone();
        let dice = &mut shared.dice;
        let slow = if dice.percent(trouble.slow) { 1500 } else { 8 };
        let mut wait = || Duration::from_millis(1 + dice.roll(slow));
        let (there, back) = (wait(), wait());
        let reasons = [P::Unreachable, P::Timeout, P::ServerError, P::SlowDown];
        let reason = reasons[dice.index(reasons.len())];
        let mut before = dice.percent(trouble.before).then(|| paused(reason));
        let after = dice.percent(trouble.after).then(|| paused(reason));
        if trouble.refused.contains(key) {
            before = Some(RemoteError::Refused {
                reason: HoldReason::Refused,
                code: None,
                message: "the simulation says so".into(),
            });
        }
        if let Some(reason) = trouble.remote_is_down {
            before = Some(paused(reason));
        }
        Fate {
            there,
            back,
            before,
            after,
        }
    }

    async fn ask<T>(&self, verb: &str, key: &str, answer: impl FnOnce() -> T) -> Result<T, RemoteError> {
        let Fate {
            there,
            back,
            before,
            after,
        } = self.fate(key);
        tokio::time::sleep(there).await;
        let result = match before {
            Some(error) => Err(error),
            None => Ok(answer()),
        };
        tokio::time::sleep(back).await;
        let result = match (result, after) {
            (Ok(_), Some(error)) => Err(error),
            (result, _) => result,
        };
        let agent = self.agent;
        self.world.tell(|_| match &result {
            Ok(_) => format!("agent {agent}: {verb} {key}"),
            Err(error) => format!("agent {agent}: {verb} {key}: {error}"),
        });
        result
    }

    /// A request that changes something: once sent, it arrives even if the agent is killed.
    async fn change<T: Send + 'static>(
        &self,
        what: String,
        key: &str,
        effect: impl FnOnce(&World, &str) -> Result<T, RemoteError> + Send + 'static,
    ) -> Result<T, RemoteError> {
        let Fate {
            there,
            back,
            before,
            after,
        } = self.fate(key);
        let (world, agent, key) = (self.world.clone(), self.agent, key.to_owned());
        let arrives = tokio::spawn(async move {
            tokio::time::sleep(there).await;
            if let Some(error) = before {
                world.tell(|_| format!("agent {agent}: {what} fails without effect: {error}"));
                return Err(error);
            }
            let result = effect(&world, &key);
            world.tell(|_| match (&result, &after) {
                (Ok(_), None) => format!("agent {agent}: {what}"),
                (Ok(_), Some(error)) => format!("agent {agent}: {what}, but the answer is {error}"),
                (Err(error), _) => format!("agent {agent}: {what}: {error}"),
            });
            match after {
                Some(error) if result.is_ok() => Err(error),
                _ => result,
            }
        });
        let result = arrives.await.unwrap();
        tokio::time::sleep(back).await;
        result
    }
}

impl Remote for AgentsRemote {
    async fn head(&self, key: &str) -> Result<Option<RemoteObject>, RemoteError> {
        let look = || {
            let shared = self.world.shared();
            shared.remote.objects.get(key).map(|stored| stored.object.clone())
        };
        self.ask("HEAD", key, look).await
    }

    async fn get(
        &self,
        key: &str,
        _range: Option<(u64, u64)>,
    ) -> Result<Option<(RemoteObject, Body)>, RemoteError> {
        let look = || self.world.shared().remote.objects.get(key).cloned();
        let found = self.ask("GET", key, look).await?;
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
        let what = format!("PUT {key} {condition:?} {}", model::shown(headers));
        let (headers, condition, bytes) = (headers.clone(), condition.clone(), bytes.freeze());
        let agent = self.agent;
        let store = move |world: &World, key: &str| {
            let allowed = {
                let bucket = &world.shared().remote;
                match (&condition, bucket.etag(key)) {
                    (Condition::Absent, there) => !bucket.put_if_absent || there.is_none(),
                    (Condition::Matches(etag), there) => !bucket.put_if_match || there == Some(etag),
                    (Condition::None, _) => true,
                }
            };
            if !allowed {
                return Err(RemoteError::ConditionFailed);
            }
            model::check_write(world, agent, key, &headers, &bytes);
            let now = world.now();
            let etag = world.shared().remote.store(key, headers, bytes, now);
            Ok(Put {
                sent_etag: etag.clone(),
                etag,
            })
        };
        self.change(what, key, store).await
    }

    async fn put_parts<P: PartSource>(
        &self,
        key: &str,
        _headers: &RemoteHeaders,
        _condition: &Condition,
        _parts: &[PartSpec],
        _source: &P,
    ) -> Result<Put, RemoteError> {
        panic!("{key}: there are no large objects here")
    }

    async fn replace_headers(
        &self,
        key: &str,
        current: &RemoteObject,
        headers: &RemoteHeaders,
    ) -> Result<Replaced, RemoteError> {
        let what = format!("COPY {key} {}", model::shown(headers));
        let (etag, headers, agent) = (current.etag.clone(), headers.clone(), self.agent);
        let replace = move |world: &World, key: &str| {
            let body = match world.shared().remote.objects.get(key) {
                Some(stored) if stored.object.etag == etag => stored.body.clone(),
                _ => return Err(RemoteError::ConditionFailed),
            };
            model::check_write(world, agent, key, &headers, &body);
            let now = world.now();
            Ok(Replaced::Done(
                world.shared().remote.store(key, headers, body, now),
            ))
        };
        self.change(what, key, replace).await
    }

    async fn abort_upload(&self, _key: &str, _upload: &str) -> Result<(), RemoteError> {
        Ok(())
    }

    async fn delete(&self, key: &str, etag: Option<&str>) -> Result<(), RemoteError> {
        let (etag, agent) = (etag.map(ToOwned::to_owned), self.agent);
        let remove = move |world: &World, key: &str| {
            {
                let bucket = &world.shared().remote;
                if etag.is_some() && bucket.delete_if_match && bucket.etag(key) != etag.as_deref() {
                    return Err(RemoteError::ConditionFailed);
                }
            }
            deletes::check_delete(world, agent, key);
            world.shared().remote.objects.remove(key);
            Ok(())
        };
        self.change(format!("DELETE {key}"), key, remove).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, RemoteError> {
        let look = || {
            let shared = self.world.shared();
            let bucket = &shared.remote;
            let mut keys = bucket.objects.iter().filter(|(key, _)| {
                key.starts_with(prefix)
                    && after.is_none_or(|after| key.as_str() > after)
                    && !bucket.hidden.contains(*key)
            });
            let listed = |(key, stored): (&String, &Stored)| ListedObject {
                key: key.clone(),
                etag: stored.object.etag.clone(),
                size: stored.object.size,
                last_modified: stored.object.last_modified,
            };
            let objects = keys.by_ref().take(limit).map(listed).collect();
            let more = keys.next().is_some();
            Page { objects, more }
        };
        self.ask("LIST", prefix, look).await
    }

    async fn probe(&self, scratch_prefix: &str) -> Result<(Capabilities, Permissions), RemoteError> {
        let look = || {
            let shared = self.world.shared();
            let bucket = &shared.remote;
            Capabilities {
                put_if_absent: bucket.put_if_absent,
                put_if_match: bucket.put_if_match,
                delete_if_match: bucket.delete_if_match,
                list_v2: true,
                ..Capabilities::default()
            }
        };
        let capabilities = self.ask("PROBE", scratch_prefix, look).await?;
        Ok((capabilities, Permissions::default()))
    }
}
