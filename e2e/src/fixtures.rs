//! Records what a real Swift says of every form that an object can have. `fixtures/README.md` says what each file is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use http::HeaderMap;
use rusqlite::{Connection, OpenFlags};
use serde_json::{Map, Value, json};

use crate::http::{Method, Reply};
use crate::swift::{Encryption, NO_HEADERS, Options, Segment, Swift, User, make_rings};
use crate::tools::{tool, workspace};

/// The folder of the recorded fixtures.
#[must_use]
pub fn folder() -> PathBuf {
    workspace().join("fixtures")
}

/// Starts a Swift, makes an object of every form, and writes what it says of them into this folder.
///
/// # Errors
/// Swift did not start, refused something, or the folder cannot be written.
pub async fn record(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder.join("rings"))?;
    std::fs::create_dir_all(folder.join("databases"))?;
    rings(&folder.join("rings"))?;
    plain_cluster(folder).await?;
    encrypted_cluster(folder).await
}

fn rings(folder: &Path) -> Result<()> {
    let device = |n: u32| json!({"region": 1 + n % 2, "zone": n, "ip": format!("192.0.2.{n}"), "port": 6200, "device": format!("sd{n}"), "weight": 100});
    let ring = |name: &str, replicas: f64, version: u32, remove: &[&str]| {
        json!({"path": folder.join(format!("{name}.ring.gz")), "partPower": 4, "replicas": replicas,
               "version": version, "devices": (1..=5).map(device).collect::<Vec<_>>(), "remove": remove})
    };
    let rings: Vec<_> = [1, 2]
        .iter()
        .flat_map(|version| {
            [
                ring(&format!("v{version}"), 3.0, *version, &[]),
                ring(&format!("v{version}-fractional"), 2.5, *version, &[]),
                ring(&format!("v{version}-hole"), 3.0, *version, &["sd2"]),
            ]
        })
        .collect();
    make_rings(&json!(rings))
}

const MANIFEST: &str = "multipart-manifest=get";

async fn plain_cluster(folder: &Path) -> Result<()> {
    let swift = Swift::start(Options::default()).await?;
    let user = swift.user().await?;
    make_objects(&swift, &user).await?;
    let internal = swift.internal(user.account());
    let containers = [
        "forms",
        "segments",
        "versioned",
        "multipart",
        "multipart+segments",
    ];
    let mut listings = Map::new();
    let mut rows = Map::new();
    for container in containers {
        listings.insert(container.to_owned(), json!(user.list(container).await?));
        rows.insert(container.to_owned(), read_rows(&database(&swift, container)?)?);
    }
    let versions = "\0versions\0versioned";
    // Only the internal endpoint may name it.
    let reserved = [("x-backend-allow-reserved-names", "true")];
    internal
        .request(Method::GET, versions, "", &reserved, "")
        .await?
        .success()?;
    rows.insert(versions.to_owned(), read_rows(&database(&swift, versions)?)?);
    write(folder, "rows.json", &json!(rows))?;
    write(folder, "listings.json", &json!(listings))?;
    write(folder, "objects.json", &objects(&internal, &rows).await?)?;
    std::fs::copy(database(&swift, "forms")?, folder.join("databases/forms.db"))?;
    Ok(())
}

async fn make_objects(swift: &Swift, user: &User) -> Result<()> {
    for container in ["forms", "segments", "multipart"] {
        user.create_container(container, NO_HEADERS).await?;
    }
    user.create_container("versioned", &[("x-versions-enabled", "true")])
        .await?;
    let forms = "forms";
    let text = [("content-type", "text/plain; charset=utf-8")];
    user.put(forms, "plain", &text, "plain\n").await?;
    user.put(forms, "empty", NO_HEADERS, "").await?;
    user.put(forms, "ünïcode//ß/", NO_HEADERS, "unicode").await?;
    let metadata: [(&str, &[u8]); 9] = [
        ("x-object-meta-ascii", b"value"),
        ("x-object-meta-Two-Words", "zwei Wörter".as_bytes()),
        ("x-object-meta-raw", b"\xff\xfe"),
        ("x-object-meta-percent", b"100%25 =?UTF-8?Q?=41?="),
        ("content-type", b"application/x-thing; charset=latin-1"),
        ("content-encoding", b"gzip"),
        ("content-disposition", b"attachment; filename=\"x.gz\""),
        ("cache-control", b"max-age=60"),
        ("x-delete-at", b"4000000000"),
    ];
    user.put(forms, "metadata", &metadata, "with metadata").await?;
    for name in ["posted", "retyped", "both-posted", "overwritten", "deleted"] {
        user.put(forms, name, &[("content-type", "text/a")], name.to_owned())
            .await?;
    }
    // Committed in between, so that the rows show what each request made.
    user.list(forms).await?;
    user.post(forms, "posted", &[("x-object-meta-x", "1")]).await?;
    user.post(forms, "retyped", &[("content-type", "text/b")]).await?;
    user.post(forms, "both-posted", &[("content-type", "text/b")])
        .await?;
    user.list(forms).await?;
    user.post(forms, "both-posted", &[("x-object-meta-x", "1")])
        .await?;
    user.put(forms, "overwritten", NO_HEADERS, "second").await?;
    user.delete(forms, "deleted").await?;
    let gone = user
        .request(Method::DELETE, "forms/never-existed", "", NO_HEADERS, "")
        .await?;
    ensure!(gone.status == 404, "DELETE of nothing answered {}", gone.status);
    user.list(forms).await?;

    for segment in ["big/1", "big/2", "big/3"] {
        user.put("segments", segment, NO_HEADERS, segment.repeat(1000))
            .await?;
    }
    let all = ["big/1", "big/2", "big/3"].map(|segment| Segment::whole("segments", segment));
    user.put_slo(forms, "slo", &[("content-type", "video/x")], &all)
        .await?;
    let part = Segment {
        range: Some("100-299".to_owned()),
        ..Segment::whole("segments", "big/2")
    };
    user.put_slo(forms, "slo-ranges", NO_HEADERS, &[all[0].clone(), part])
        .await?;
    user.put_slo(
        forms,
        "slo-nested",
        NO_HEADERS,
        &[all[2].clone(), Segment::whole(forms, "slo")],
    )
    .await?;
    user.put_slo(forms, "slo-retyped", NO_HEADERS, &all[..1]).await?;
    user.list(forms).await?;
    user.post(forms, "slo-retyped", &[("content-type", "text/b")])
        .await?;
    user.put_dlo(forms, "dlo", "segments", "big/").await?;
    user.put_symlink(forms, "symlink", "forms/plain", None).await?;
    user.put_symlink(forms, "symlink-dangling", "forms/nothing at all", None)
        .await?;
    let etag = user
        .head(forms, "plain")
        .await?
        .header("etag")
        .context("no ETag")?
        .to_owned();
    user.put_symlink(forms, "symlink-static", "forms/plain", Some(&etag))
        .await?;

    user.put("versioned", "once", NO_HEADERS, "1").await?;
    user.put("versioned", "twice", NO_HEADERS, "1").await?;
    user.put("versioned", "twice", NO_HEADERS, "22").await?;
    user.put("versioned", "removed", NO_HEADERS, "1").await?;
    user.delete("versioned", "removed").await?;

    let (endpoint, access, secret) = swift.s3api();
    let script = include_str!("swift/s3_multipart.py");
    let first = "a".repeat(5 << 20);
    // s3api wants 5 MiB parts; only the last may be smaller.
    let file = swift.folder().join("part");
    std::fs::write(&file, first)?;
    let status = std::process::Command::new(tool("venv/bin/python")?)
        .args(["-c", script, &endpoint, access, secret, "multipart", "two-parts"])
        .arg(format!("@{}", file.display()))
        .arg("the end")
        .status()?;
    ensure!(status.success(), "the multipart upload failed");
    Ok(())
}

async fn encrypted_cluster(folder: &Path) -> Result<()> {
    let options = |encryption| Options {
        encryption,
        ..Options::default()
    };
    let mut result = Map::new();
    for (name, encryption) in [
        ("decrypting", Encryption::On),
        ("not-decrypting", Encryption::EndpointCannotDecrypt),
    ] {
        let swift = Swift::start(options(encryption)).await?;
        let user = swift.user().await?;
        user.create_container("secret", NO_HEADERS).await?;
        user.put("secret", "plain", &[("x-object-meta-x", "hidden")], "plain\n")
            .await?;
        user.list("secret").await?;
        let rows = Map::from_iter([("secret".to_owned(), read_rows(&database(&swift, "secret")?)?)]);
        let objects = objects(&swift.internal(user.account()), &rows).await?;
        result.insert(name.to_owned(), json!({"rows": rows, "objects": objects}));
    }
    write(folder, "encrypted.json", &json!(result))
}

/// What the internal endpoint answers for the name of every row.
async fn objects(internal: &User, rows: &Map<String, Value>) -> Result<Value> {
    let mut containers = Map::new();
    for (container, rows) in rows {
        let mut objects = Map::new();
        for row in rows.as_array().into_iter().flatten() {
            let name = row["name"].as_str().context("a name")?;
            let path = format!("{container}/{name}");
            // Names with NUL are Swift's own.
            let reserved = [("x-backend-allow-reserved-names", "true")];
            let ask = async |method, query| internal.request(method, &path, query, &reserved, "").await;
            let get = ask(Method::GET, "").await?;
            let mut object = json!({
                "head": answer(&ask(Method::HEAD, "").await?),
                "get": answer(&get),
                "head-symlink": answer(&ask(Method::HEAD, "symlink=get").await?),
            });
            if get.header("x-static-large-object").is_some() {
                ensure!(
                    ask(Method::GET, MANIFEST).await?.body == get.body,
                    "the endpoint resolves manifests"
                );
                object["manifest"] = serde_json::from_slice(&get.body)?;
            }
            objects.insert(name.to_owned(), object);
        }
        containers.insert(container.clone(), objects.into());
    }
    Ok(containers.into())
}

fn answer(reply: &Reply) -> Value {
    json!({"status": reply.status.as_u16(), "headers": headers(&reply.headers)})
}

/// Header values as text; those that are not UTF-8 as `{"hex": ...}`.
fn headers(headers: &HeaderMap) -> BTreeMap<&str, Value> {
    let value = |value: &http::HeaderValue| match std::str::from_utf8(value.as_bytes()) {
        Ok(text) => json!(text),
        Err(_) => {
            json!({"hex": value.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect::<String>()})
        }
    };
    headers
        .iter()
        .map(|(name, bytes)| (name.as_str(), value(bytes)))
        .collect()
}

/// The database of a container: the only one whose `container_info` names it.
fn database(swift: &Swift, container: &str) -> Result<PathBuf> {
    let mut folders = vec![swift.devices()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "db")
                && path.components().any(|part| part.as_os_str() == "containers")
            {
                let query = "SELECT container FROM container_info";
                let name: String = open(&path)?.query_row(query, [], |row| row.get(0))?;
                if name == container {
                    return Ok(path);
                }
            }
        }
    }
    anyhow::bail!("there is no database of {container:?}")
}

fn open(path: &Path) -> Result<Connection> {
    Ok(Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY,
    )?)
}

fn read_rows(path: &Path) -> Result<Value> {
    let db = open(path)?;
    let mut statement = db.prepare(
        "SELECT ROWID, name, created_at, size, content_type, etag, deleted, storage_policy_index FROM object ORDER BY ROWID",
    )?;
    let rows = statement.query_map([], |row| {
        Ok(json!({
            "rowid": row.get::<_, i64>(0)?, "name": row.get::<_, String>(1)?, "created_at": row.get::<_, String>(2)?,
            "size": row.get::<_, i64>(3)?, "content_type": row.get::<_, String>(4)?, "etag": row.get::<_, String>(5)?,
            "deleted": row.get::<_, i64>(6)?, "storage_policy_index": row.get::<_, i64>(7)?,
        }))
    })?;
    Ok(rows.collect::<Result<Vec<_>, _>>()?.into())
}

fn write(folder: &Path, name: &str, value: &Value) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    std::fs::write(folder.join(name), text).with_context(|| name.to_owned())
}

/// A recorded file without what is different every time: times, ids, random keys.
///
/// # Errors
/// There is no such file, or it is not JSON.
pub fn normalised(folder: &Path, name: &str) -> Result<Value> {
    let text = std::fs::read_to_string(folder.join(name)).with_context(|| name.to_owned())?;
    let mut value = serde_json::from_str(&text)?;
    normalise(&mut value);
    Ok(value)
}

fn normalise(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            // A stored manifest has times in it, and ciphertext a random start: their md5s are others every time.
            let varies = [
                "x-static-large-object",
                "slo_etag",
                "sub_slo",
                "x-object-sysmeta-crypto-body-meta",
            ]
            .iter()
            .any(|name| fields.contains_key(*name));
            for (name, mut value) in std::mem::take(fields) {
                normalise(&mut value);
                if VARIES.contains(&name.as_str()) || (varies && ["etag", "hash"].contains(&name.as_str())) {
                    value = json!("VARIES");
                }
                fields.insert(plain(&name), value);
            }
        }
        Value::Array(values) => values.iter_mut().for_each(normalise),
        Value::String(text) => *text = plain(text),
        _ => {}
    }
}

/// Fields and headers that are different every time.
const VARIES: &[&str] = &[
    "x-trans-id",
    "x-openstack-request-id",
    "date",
    "last-modified",
    "last_modified",
    "x-object-sysmeta-s3api-upload-id",
    "x-object-sysmeta-crypto-body-meta",
    "x-object-sysmeta-crypto-etag",
    "x-object-sysmeta-crypto-etag-mac",
    "x-object-transient-sysmeta-crypto-meta",
    "x-object-transient-sysmeta-crypto-meta-x",
];

/// Replaces times by `T` and their deltas by `D`, the id of a multipart upload, the md5 of a stored manifest, and
/// what is encrypted.
fn plain(text: &str) -> String {
    if text.contains("swift_meta=") {
        return "CIPHERTEXT".to_owned();
    }
    if let Some((before, parameters)) = text.split_once(';')
        && parameters.contains("slo_etag=")
        && before.len() == 32
    {
        return format!("MANIFEST;{parameters}");
    }
    if let Some((before, after)) = text.split_once("two-parts/") {
        let part = after.trim_start_matches(|c: char| c.is_ascii_alphanumeric());
        return format!("{before}two-parts/UPLOAD{part}");
    }
    let mut result = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let count = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
        let digits = count(rest);
        let decimals = rest[digits..].strip_prefix('.').map_or(0, count);
        if digits >= 10 && decimals == 5 {
            result.push_str(&rest[..digits - 10]);
            result.push('T');
            rest = &rest[digits + 6..];
            while let Some(delta) = rest.strip_prefix(['+', '-']) {
                result.push_str(if delta.starts_with('0') { "+0" } else { "+D" });
                rest = delta.trim_start_matches(|c: char| c.is_ascii_hexdigit());
            }
        } else {
            let length = digits.max(first.len_utf8());
            result.push_str(&rest[..length]);
            rest = &rest[length..];
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_times_are_made_equal() {
        assert_eq!(plain("1795331103.54963+0+223a8"), "T+0+D");
        assert_eq!(plain("1795331103.54963_0000000000000001"), "T_0000000000000001");
        assert_eq!(plain("\0twice\08204668775.00235"), "\0twice\0T");
        assert_eq!(plain("4000000000 ü 12.5"), "4000000000 ü 12.5");
    }
}
