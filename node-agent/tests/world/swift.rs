//! Swift: users' requests, container databases and object servers.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use md5::{Digest, Md5};
use onespace_core::local::SwiftObject;
use onespace_core::manifest::ListedSegment;
use onespace_core::mapping::Mapping;
use onespace_core::plan::reconcile::ContainerSays;
use onespace_core::row::RawRow;
use onespace_core::timestamp::Timestamp;
use onespace_node_agent::clock::Clock;
use onespace_node_agent::databases::{Chunk, DatabaseError, Databases, Located, ReadRow, Replica, Signature};
use onespace_stores::body::Body;
use onespace_stores::source::{Answer, ObjectPath, Primaries, Read, Source, SourceError};

use super::{Db, World, path, replica, shown};

/// What an object server holds.
#[derive(Clone, Debug)]
pub enum Object {
    /// An object.
    There {
        /// Time of the body.
        time: Timestamp,
        /// The body.
        body: Bytes,
    },
    /// A tombstone.
    Deleted(Timestamp),
}

impl World {
    /// A user's PUT, now.
    pub fn put(&self, container: &str, name: &str, body: &str) {
        let time = self.store(container, name, body);
        self.insert(container, row(name, &time.to_string(), body));
    }

    /// A PUT that reached the object servers alone.
    pub fn store(&self, container: &str, name: &str, body: &str) -> Timestamp {
        let time = self.clock.now();
        let body = Bytes::copy_from_slice(body.as_bytes());
        let object = Object::There { time, body };
        self.things()
            .objects
            .insert((shown(container).into(), name.into()), object);
        time
    }

    /// A user's DELETE, now.
    pub fn delete(&self, container: &str, name: &str) {
        let time = self.clock.now();
        let object = Object::Deleted(time);
        self.things()
            .objects
            .insert((shown(container).into(), name.into()), object);
        self.insert(container, tombstone(name, &time.to_string()));
    }

    /// What the replicator does with a tombstone older than the reclaim age, and the object servers with theirs.
    pub fn forget(&self, container: &str, name: &str) {
        let mut things = self.things();
        things.objects.remove(&(container.to_owned(), name.to_owned()));
        let now = self.clock.now();
        let db = things.databases.get_mut(&path(container)).unwrap();
        db.rows.retain(|_, row| row.name != name || !row.deleted);
        db.modified = now;
    }

    fn things_are_unknown(&self, name: &str) -> bool {
        self.things().primaries_unknown.contains(name)
    }

    /// What a container server does with a row: it replaces the one of the same name and policy.
    pub fn insert(&self, container: &str, row: RawRow) {
        let now = self.clock.now();
        let mut things = self.things();
        let db = things.databases.get_mut(&path(container)).unwrap();
        db.rows
            .retain(|_, old| (&old.name, old.policy_index) != (&row.name, row.policy_index));
        db.last += 1;
        db.rows.insert(
            db.last,
            RawRow {
                rowid: db.last,
                ..row
            },
        );
        db.modified = now;
    }
}

/// A live row.
pub fn row(name: &str, created_at: &str, body: &str) -> RawRow {
    RawRow {
        rowid: 0,
        name: name.into(),
        created_at: created_at.into(),
        size: i64::try_from(body.len()).unwrap(),
        content_type: "text/plain".into(),
        etag: hex::encode(Md5::digest(body)),
        deleted: false,
        policy_index: 0,
    }
}

/// A tombstone's row.
pub fn tombstone(name: &str, created_at: &str) -> RawRow {
    RawRow {
        size: 0,
        content_type: "application/deleted".into(),
        etag: "noetag".into(),
        deleted: true,
        ..row(name, created_at, "")
    }
}

impl World {
    fn chunk(
        &self,
        replica: &Replica,
        limit: usize,
        select: impl Fn(&Db) -> Vec<RawRow>,
    ) -> Result<Chunk, DatabaseError> {
        let mut things = self.things();
        let gone = || DatabaseError::Gone(replica.path.clone());
        let db = things.databases.get_mut(&replica.path).ok_or_else(gone)?;
        db.reads += 1;
        if let Some(trouble) = &db.trouble {
            return Err(trouble.clone());
        }
        let mut rows = select(db);
        let complete = rows.len() < limit;
        rows.truncate(limit);
        let read = |row: RawRow| match db.damaged.contains(&row.rowid) {
            true => ReadRow::Damaged {
                rowid: row.rowid,
                name: None,
                what: "its name is bytes".to_owned(),
            },
            false => ReadRow::Row(row),
        };
        Ok(Chunk {
            id: db.id.clone(),
            max_rowid: db.last,
            rows: rows.into_iter().map(read).collect(),
            complete,
        })
    }
}

impl Databases for World {
    async fn locate(&self, mapping: &Mapping) -> Result<Located, DatabaseError> {
        let things = self.things();
        let containers = things
            .databases
            .keys()
            .filter_map(|path| path.file_name()?.to_str().map(ToOwned::to_owned));
        let wanted = |container: &String| match mapping.source.is_account_wide() {
            true => !mapping.carved_out.iter().any(|other| other == shown(container)),
            false => shown(container) == mapping.source.container,
        };
        let replicas: Vec<_> = containers
            .filter(wanted)
            .map(|name| replica(&name, self.part))
            .collect();
        Ok(Located {
            missing: replicas.is_empty().then(|| "no such container".to_owned()),
            replicas,
            ..Located::default()
        })
    }

    async fn signatures(&self, replicas: Vec<Replica>) -> Vec<(PathBuf, Result<Signature, DatabaseError>)> {
        let things = self.things();
        let look = |replica: Replica| {
            let found = things.databases.get(&replica.path).map(|db| Signature {
                database: (
                    db.file,
                    i128::from(db.modified.ticks()) * 10_000,
                    db.last.unsigned_abs(),
                ),
                pending: 0,
            });
            let found = found.ok_or_else(|| DatabaseError::Gone(replica.path.clone()));
            let stuck = DatabaseError::Stuck {
                path: replica.path.clone(),
                what: "device d1 does not answer".to_owned(),
            };
            match things.unseen.contains(&replica.path) {
                true => (replica.path, Err(stuck)),
                false => (replica.path, found),
            }
        };
        replicas.into_iter().map(look).collect()
    }

    async fn rows_after(&self, replica: &Replica, after: i64, limit: usize) -> Result<Chunk, DatabaseError> {
        while self.things().hangs.contains(&replica.path) {
            super::pass(std::time::Duration::from_secs(1)).await;
        }
        self.chunk(replica, limit, |db| {
            let rows = db.rows.range(after.saturating_add(1)..);
            rows.take(limit).map(|(_, row)| row.clone()).collect()
        })
    }

    async fn rows_by_name(
        &self,
        replica: &Replica,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Chunk, DatabaseError> {
        self.chunk(replica, limit, |db| {
            let wanted = |row: &&RawRow| !row.deleted && after.is_none_or(|after| row.name.as_str() > after);
            let mut rows: Vec<_> = db.rows.values().filter(wanted).cloned().collect();
            rows.sort_by(|a, b| (&a.name, a.rowid).cmp(&(&b.name, b.rowid)));
            rows
        })
    }

    async fn rows_of(&self, replica: &Replica, name: &str) -> Result<Vec<ReadRow>, DatabaseError> {
        let of_name = |db: &Db| {
            let readable = db.rows.values().filter(|row| !db.damaged.contains(&row.rowid));
            readable.filter(|row| row.name == name).cloned().collect()
        };
        Ok(self.chunk(replica, usize::MAX, of_name)?.rows)
    }

    async fn live_rows(&self, replica: &Replica) -> Result<u64, DatabaseError> {
        let live = |db: &Db| db.rows.values().filter(|row| !row.deleted).cloned().collect();
        Ok(self.chunk(replica, usize::MAX, live)?.rows.len() as u64)
    }

    async fn peers(&self, replica: &Replica) -> Vec<Option<ContainerSays>> {
        super::pass(std::time::Duration::from_millis(5)).await;
        let things = self.things();
        let Some(db) = things.databases.get(&replica.path) else {
            return vec![None];
        };
        let live = db.rows.values().filter(|row| !row.deleted);
        let ours = ContainerSays {
            objects: live.clone().count() as u64,
            bytes: live.map(|row| row.size.unsigned_abs()).sum(),
            policy_index: 0,
            sharding: things.sharding.unwrap_or("unsharded").to_owned(),
            created: db.created,
        };
        let peer = ContainerSays {
            objects: ours.objects + things.peer_has_more,
            ..ours.clone()
        };
        vec![Some(ours), (!things.peer_is_silent).then_some(peer)]
    }

    async fn peers_lack(&self, _replica: &Replica, name: &str) -> bool {
        !self.things().peer_lists.contains(name)
    }

    fn policies(&self) -> Vec<u32> {
        vec![0, 1]
    }

    fn reclaim_age(&self) -> Duration {
        self.things()
            .reclaim_age
            .unwrap_or(Duration::from_secs(7 * 86400))
    }

    async fn name_at(&self, replica: &Replica, rowid: i64) -> Result<Option<String>, DatabaseError> {
        let at = |db: &Db| db.rows.get(&rowid).cloned().into_iter().collect();
        let found = self.chunk(replica, usize::MAX, at)?.rows;
        Ok(found.first().and_then(|row| row.name().map(ToOwned::to_owned)))
    }
}

impl Source for World {
    async fn head(&self, object: &ObjectPath, read: &Read) -> Result<Answer<SwiftObject>, SourceError> {
        Ok(match self.get(object, read).await? {
            Answer::Found((object, _)) => Answer::Found(object),
            Answer::Absent(time) => Answer::Absent(time),
            Answer::Changed => Answer::Changed,
        })
    }

    async fn get(
        &self,
        object: &ObjectPath,
        _read: &Read,
    ) -> Result<Answer<(SwiftObject, Body)>, SourceError> {
        // A request takes time: other tasks run meanwhile.
        super::pass(std::time::Duration::from_millis(5)).await;
        let panics = self.things().panics.contains(&object.object);
        assert!(!panics, "a mistake in the program");
        let things = self.things();
        if things.swift_is_down {
            return Err(SourceError::Unavailable {
                endpoint: "http://swift".into(),
                message: "connection refused".into(),
            });
        }
        let name = (object.container.clone(), object.object.clone());
        let object_manifest = things.manifests.get(&name).cloned();
        Ok(match things.objects.get(&name) {
            None => Answer::Absent(None),
            Some(Object::Deleted(time)) => Answer::Absent(Some(*time)),
            Some(Object::There { time, body }) => {
                let time = (!things.endpoint_is_public).then_some(*time);
                let headers = SwiftObject {
                    undecrypted: things.endpoint_cannot_decrypt,
                    etag: hex::encode(Md5::digest(body)),
                    size: body.len() as u64,
                    content_type: "text/plain".into(),
                    data_time: time,
                    time,
                    object_manifest,
                    ..SwiftObject::default()
                };
                Answer::Found((headers, Body::from_bytes(body.clone())))
            }
        })
    }

    async fn list(
        &self,
        prefix: &ObjectPath,
        marker: &str,
    ) -> Result<Answer<Vec<ListedSegment>>, SourceError> {
        super::pass(std::time::Duration::from_millis(5)).await;
        let things = self.things();
        if things.no_container.contains(&prefix.container) {
            return Ok(Answer::Absent(None));
        }
        let listed = things
            .objects
            .iter()
            .filter_map(|((container, name), object)| match object {
                Object::There { body, .. }
                    if *container == prefix.container
                        && name.starts_with(&prefix.object)
                        && name.as_str() > marker =>
                {
                    Some(ListedSegment {
                        name: name.clone(),
                        bytes: body.len() as u64,
                        hash: hex::encode(Md5::digest(body)),
                    })
                }
                _ => None,
            });
        // A page of two names.
        Ok(Answer::Found(listed.take(2).collect()))
    }

    async fn primaries(&self, object: &ObjectPath, _policy_index: u32) -> Result<Primaries, SourceError> {
        let name = (object.container.clone(), object.object.clone());
        let found = self.things().objects.get(&name).cloned();
        Ok(match found {
            Some(Object::There { .. }) => Primaries::SomeHave,
            _ if self.things_are_unknown(&object.object) => Primaries::Unknown,
            _ => Primaries::AllLack,
        })
    }
}
