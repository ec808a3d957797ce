//! Rows of the table `object`.

use onespace_core::row::RawRow;
use rusqlite::types::ValueRef;
use rusqlite::{Params, Row, Transaction, params};

use super::info::head;
use super::open::ReadError;
use super::{Chunk, MAX_ROWS, ReadRow, RowDamage};

/// How many rows a search for tombstones looks at: some milliseconds.
const SCAN: i64 = 20_000;

/// How much longer than asked for a chunk may be, to end at a row with a readable name.
const MAX_DAMAGED: usize = 1_000;

/// The longest value of a row. Swift's own limits for names, types and etags are below 10 KiB.
const MAX_VALUE: i64 = 64 << 10;

pub(super) fn after(db: &Transaction<'_>, rowid: i64, limit: usize) -> Result<Chunk, ReadError> {
    let limit = limit.clamp(1, MAX_ROWS);
    let rows = select(
        db,
        "ROWID > ?1 ORDER BY ROWID LIMIT ?2",
        params![rowid, sql(limit)],
    )?;
    in_order(&rows, rowid)?;
    let scanned_to = rows.last().map_or(rowid, rowid_of);
    Ok(Chunk {
        head: head(db)?,
        complete: rows.len() < limit,
        rows,
        scanned_to,
    })
}

pub(super) fn tombstones_after(db: &Transaction<'_>, rowid: i64, limit: usize) -> Result<Chunk, ReadError> {
    let limit = limit.clamp(1, MAX_ROWS);
    let head = head(db)?;
    // By ROWID and not by the index on `deleted`, which would sort all tombstones.
    let end = rowid.saturating_add(SCAN);
    let condition = "ROWID > ?1 AND ROWID <= ?2 AND +deleted = 1 ORDER BY ROWID LIMIT ?3";
    let rows = select(db, condition, params![rowid, end, sql(limit)])?;
    in_order(&rows, rowid)?;
    let full = rows.len() == limit;
    let last = rows.last().map_or(rowid, rowid_of);
    let scanned_to = if full {
        last
    } else {
        // In a damaged file the highest number ever given can be below those of rows.
        end.min(head.max_rowid).max(last)
    };
    Ok(Chunk {
        complete: !full && end >= head.max_rowid,
        head,
        rows,
        scanned_to,
    })
}

/// In a damaged file rows can come in any order. Whoever went on behind such rows would go round in circles, or pass over
/// others.
fn in_order(rows: &[ReadRow], after: i64) -> Result<(), ReadError> {
    let mut last = after;
    for row in rows {
        let rowid = rowid_of(row);
        if rowid <= last {
            return Err(ReadError::Content(format!("row {rowid} comes after row {last}")));
        }
        last = rowid;
    }
    Ok(())
}

pub(super) fn by_name(db: &Transaction<'_>, after: Option<&str>, limit: usize) -> Result<Chunk, ReadError> {
    let limit = limit.clamp(1, MAX_ROWS);
    // A chunk ends behind a row that has a readable name and is the last of it.
    let enough = |rows: &[ReadRow], next: &ReadRow| {
        let last = rows.last().and_then(name_of);
        rows.len() >= limit && last.is_some() && last != name_of(next)
    };
    let most = sql(limit + MAX_DAMAGED);
    let (rows, complete) = match after {
        Some(name) => select_until(
            db,
            "deleted = 0 AND name > ?1 ORDER BY name, ROWID LIMIT ?2",
            params![name, most],
            enough,
        )?,
        None => select_until(
            db,
            "deleted = 0 ORDER BY name, ROWID LIMIT ?1",
            params![most],
            enough,
        )?,
    };
    if rows.len() == limit + MAX_DAMAGED {
        return Err(ReadError::Content(format!(
            "more than {MAX_DAMAGED} rows one after another have names that cannot be read"
        )));
    }
    let names = || rows.iter().filter_map(name_of);
    if !names().is_sorted()
        || names()
            .next()
            .is_some_and(|first| after.is_some_and(|after| first <= after))
    {
        return Err(ReadError::Content(
            "its rows are not in the order of their names".to_owned(),
        ));
    }
    Ok(Chunk {
        scanned_to: rows.iter().map(rowid_of).max().unwrap_or(0),
        head: head(db)?,
        rows,
        complete,
    })
}

pub(super) fn of(db: &Transaction<'_>, name: &str) -> Result<Vec<ReadRow>, ReadError> {
    // Both values of `deleted`, so that the index on (deleted, name) serves.
    select(
        db,
        "deleted IN (0, 1) AND name = ?1 LIMIT ?2",
        params![name, sql(MAX_ROWS)],
    )
}

pub(super) fn name_at(db: &Transaction<'_>, rowid: i64) -> Result<Option<String>, ReadError> {
    let rows = select(db, "ROWID = ?1", params![rowid])?;
    Ok(rows.first().and_then(name_of).map(str::to_owned))
}

fn sql(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

fn rowid_of(row: &ReadRow) -> i64 {
    match row {
        Ok(row) => row.rowid,
        Err(damage) => damage.rowid,
    }
}

fn name_of(row: &ReadRow) -> Option<&str> {
    match row {
        Ok(row) => Some(&row.name),
        Err(damage) => damage.name.as_deref(),
    }
}

fn select(db: &Transaction<'_>, condition: &str, parameters: impl Params) -> Result<Vec<ReadRow>, ReadError> {
    Ok(select_until(db, condition, parameters, |_, _| false)?.0)
}

/// The rows up to where `enough` says so of those that there are and the next one; and whether that was all.
fn select_until(
    db: &Transaction<'_>,
    condition: &str,
    parameters: impl Params,
    enough: impl Fn(&[ReadRow], &ReadRow) -> bool,
) -> Result<(Vec<ReadRow>, bool), ReadError> {
    // Databases from before storage policies have no such column; all their rows are in policy 0.
    let policies = "SELECT COUNT(*) FROM pragma_table_info('object') WHERE name = 'storage_policy_index'";
    let policy = match db.query_row(policies, [], |row| row.get::<_, i64>(0))? {
        0 => "0",
        _ => "storage_policy_index",
    };
    // Lengths stand in a row's header: a value that is too long is not even read.
    let columns = [
        "name",
        "created_at",
        "size",
        "content_type",
        "etag",
        "deleted",
        policy,
    ];
    let short = columns
        .map(|column| format!("CASE WHEN octet_length({column}) > {MAX_VALUE} THEN NULL ELSE {column} END"));
    let longest = columns.map(|column| format!("coalesce(octet_length({column}), 0)"));
    let query = format!(
        "SELECT ROWID, {}, max({}) FROM object WHERE {condition}",
        short.join(", "),
        longest.join(", ")
    );
    let mut statement = db.prepare(&query)?;
    let mut found = statement.query(parameters)?;
    let mut rows = Vec::new();
    while let Some(row) = found.next()? {
        let row = read(row)?;
        if enough(&rows, &row) {
            return Ok((rows, false));
        }
        rows.push(row);
    }
    Ok((rows, true))
}

fn read(row: &Row<'_>) -> Result<ReadRow, ReadError> {
    let rowid = row.get(0)?;
    Ok(raw(row, rowid).map_err(|what| RowDamage {
        rowid,
        name: text(row, 1, "name").ok(),
        what,
    }))
}

fn raw(row: &Row<'_>, rowid: i64) -> Result<RawRow, String> {
    let longest = number(row, 8, "length")?;
    if longest > MAX_VALUE {
        return Err(format!("a value in it has {longest} bytes"));
    }
    Ok(RawRow {
        rowid,
        name: text(row, 1, "name")?,
        created_at: text(row, 2, "created_at")?,
        size: number(row, 3, "size")?,
        content_type: text(row, 4, "content_type")?,
        etag: text(row, 5, "etag")?,
        deleted: match number(row, 6, "deleted")? {
            0 => false,
            1 => true,
            other => return Err(format!("its deleted is {other}")),
        },
        policy_index: number(row, 7, "storage_policy_index")?,
    })
}

fn value<'a>(row: &'a Row<'_>, at: usize) -> Result<ValueRef<'a>, String> {
    row.get_ref(at).map_err(|error| error.to_string())
}

fn text(row: &Row<'_>, at: usize, column: &str) -> Result<String, String> {
    match value(row, at)? {
        ValueRef::Text(text) => std::str::from_utf8(text)
            .map(str::to_owned)
            .map_err(|_| format!("its {column} is not UTF-8")),
        other => Err(format!("its {column} is {}", kind(other))),
    }
}

fn number(row: &Row<'_>, at: usize, column: &str) -> Result<i64, String> {
    match value(row, at)? {
        ValueRef::Integer(number) => Ok(number),
        other => Err(format!("its {column} is {}", kind(other))),
    }
}

fn kind(value: ValueRef<'_>) -> &'static str {
    match value {
        ValueRef::Null => "NULL",
        ValueRef::Integer(_) => "a number",
        ValueRef::Real(_) => "a fraction",
        ValueRef::Text(_) => "text",
        ValueRef::Blob(_) => "bytes",
    }
}
