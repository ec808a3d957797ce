//! What a database says of its container, in every schema that Swift has had.

use std::collections::BTreeMap;

use onespace_core::timestamp::Timestamp;
use rusqlite::types::ValueRef;
use rusqlite::{OptionalExtension as _, Row, Transaction};

use super::Head;
use super::open::ReadError;

/// A container's header with the time at which it was set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its value; empty = removed.
    pub value: String,
    /// When.
    pub time: Timestamp,
}

/// A container database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DbInfo {
    /// Id, hash and highest ROWID.
    pub head: Head,
    /// Account.
    pub account: String,
    /// Container.
    pub container: String,
    /// When the container was created on this node.
    pub created_at: Timestamp,
    /// The last PUT or POST of the container.
    pub put_timestamp: Timestamp,
    /// The last DELETE of the container; 0 = never.
    pub delete_timestamp: Timestamp,
    /// Live rows under the container's own policy, without what the pending file holds.
    pub object_count: i64,
    /// Their bytes, large objects counted by their manifests.
    pub bytes_used: i64,
    /// The container's storage policy.
    pub policy_index: i64,
    /// Headers of the container by their names in title case, removed ones included.
    pub metadata: BTreeMap<String, Header>,
}

impl DbInfo {
    /// Whether the container is deleted: its file stays until Swift reclaims it.
    #[must_use]
    pub fn is_deleted(&self) -> bool {
        self.delete_timestamp > self.put_timestamp && self.object_count == 0
    }

    /// A header's value, whatever the case of its name, unless it was removed.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .metadata
            .iter()
            .find(|(other, _)| other.eq_ignore_ascii_case(name));
        found
            .map(|(_, header)| header.value.as_str())
            .filter(|value| !value.is_empty())
    }
}

/// `container_stat` is there in every schema: first as a table, later as a view over two tables. What an old one
/// lacks has its default.
pub(super) fn info(db: &Transaction<'_>) -> Result<DbInfo, ReadError> {
    let mut statement = db.prepare("SELECT * FROM container_stat LIMIT 1")?;
    let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let mut rows = statement.query([])?;
    let row = rows
        .next()?
        .ok_or_else(|| ReadError::Content("it names no container".to_owned()))?;
    let fields = Fields {
        row,
        columns: &columns,
    };
    let info = DbInfo {
        head: Head {
            id: fields.text("id")?,
            hash: fields.text("hash")?,
            max_rowid: 0,
        },
        account: fields.text("account")?,
        container: fields.text("container")?,
        created_at: fields.time("created_at")?,
        put_timestamp: fields.time("put_timestamp")?,
        delete_timestamp: fields.time("delete_timestamp")?,
        object_count: fields.number("object_count")?,
        bytes_used: fields.number("bytes_used")?,
        policy_index: fields.number("storage_policy_index")?,
        metadata: metadata(&fields.text("metadata")?)?,
    };
    if info.account.is_empty() || info.container.is_empty() {
        return Err(ReadError::Content("it names no container".to_owned()));
    }
    let max_rowid = max_rowid(db)?;
    Ok(DbInfo {
        head: Head {
            max_rowid,
            ..info.head
        },
        ..info
    })
}

/// The part of it that is read with every chunk.
pub(super) fn head(db: &Transaction<'_>) -> Result<Head, ReadError> {
    let found = db.query_row("SELECT id, hash FROM container_stat LIMIT 1", [], |row| {
        Ok((row.get::<_, Option<String>>(0)?, row.get::<_, Option<String>>(1)?))
    });
    let (id, hash) = found
        .optional()?
        .ok_or_else(|| ReadError::Content("it names no container".to_owned()))?;
    Ok(Head {
        id: id.unwrap_or_default(),
        hash: hash.unwrap_or_default(),
        max_rowid: max_rowid(db)?,
    })
}

/// The sum over policies; databases from before storage policies have one number.
pub(super) fn live_rows(db: &Transaction<'_>) -> Result<u64, ReadError> {
    let has_policies = "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = 'policy_stat'";
    let query = match db.query_row(has_policies, [], |row| row.get::<_, i64>(0))? {
        0 => "SELECT SUM(object_count) FROM container_stat",
        _ => "SELECT SUM(object_count) FROM policy_stat",
    };
    let rows: Option<i64> = db.query_row(query, [], |row| row.get(0))?;
    Ok(rows.and_then(|rows| u64::try_from(rows).ok()).unwrap_or(0))
}

fn max_rowid(db: &Transaction<'_>) -> Result<i64, ReadError> {
    let query = "SELECT seq FROM sqlite_sequence WHERE name = 'object'";
    Ok(db.query_row(query, [], |row| row.get(0)).optional()?.unwrap_or(0))
}

fn metadata(text: &str) -> Result<BTreeMap<String, Header>, ReadError> {
    if text.is_empty() {
        return Ok(BTreeMap::new());
    }
    let unreadable = |what: String| ReadError::Content(format!("its metadata cannot be understood: {what}"));
    let raw: BTreeMap<String, (String, String)> =
        serde_json::from_str(text).map_err(|error| unreadable(error.to_string()))?;
    raw.into_iter()
        .map(|(name, (value, time))| {
            let time = timestamp(&time).map_err(|what| unreadable(format!("{name}: {what}")))?;
            Ok((name, Header { value, time }))
        })
        .collect()
}

fn timestamp(text: &str) -> Result<Timestamp, String> {
    match text {
        // What a column holds before anything was set.
        "" | "0" => Ok(Timestamp::default()),
        text => Timestamp::parse(text).map_err(|error| error.to_string()),
    }
}

/// A row's values by column name; an absent column and NULL are empty or 0.
struct Fields<'a> {
    row: &'a Row<'a>,
    columns: &'a [String],
}

impl Fields<'_> {
    fn value(&self, column: &str) -> Result<ValueRef<'_>, ReadError> {
        match self.columns.iter().position(|other| other == column) {
            Some(at) => Ok(self.row.get_ref(at)?),
            None => Ok(ValueRef::Null),
        }
    }

    fn text(&self, column: &str) -> Result<String, ReadError> {
        match self.value(column)? {
            ValueRef::Null => Ok(String::new()),
            ValueRef::Integer(number) => Ok(number.to_string()),
            ValueRef::Text(text) => std::str::from_utf8(text)
                .map(str::to_owned)
                .map_err(|_| ReadError::Content(format!("its {column} is not UTF-8"))),
            ValueRef::Real(_) | ValueRef::Blob(_) => {
                Err(ReadError::Content(format!("its {column} is not text")))
            }
        }
    }

    fn number(&self, column: &str) -> Result<i64, ReadError> {
        match self.value(column)? {
            ValueRef::Null => Ok(0),
            ValueRef::Integer(number) => Ok(number),
            _ => Err(ReadError::Content(format!("its {column} is not a number"))),
        }
    }

    fn time(&self, column: &str) -> Result<Timestamp, ReadError> {
        let text = self.text(column)?;
        timestamp(&text).map_err(|what| ReadError::Content(format!("its {column} is no time: {what}")))
    }
}
