//! A user of Swift: requests on one account.

use anyhow::{Context, Result};
use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use crate::http::{Http, Method, Reply};

/// For requests without headers.
pub const NO_HEADERS: &[(&str, &str)] = &[];

const KEPT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/');

/// A name as it stands in a path.
#[must_use]
pub fn quote(name: &str) -> String {
    utf8_percent_encode(name, KEPT).to_string()
}

/// One entry of an SLO manifest.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Container of the segment.
    pub container: String,
    /// The segment.
    pub object: String,
    /// Which bytes, as in a Range header (`0-9`); absent = all.
    pub range: Option<String>,
}

impl Segment {
    /// A whole object as a segment.
    #[must_use]
    pub fn whole(container: &str, object: &str) -> Self {
        Self {
            container: container.to_owned(),
            object: object.to_owned(),
            range: None,
        }
    }
}

/// One account through one proxy. Methods that store or change something expect success and return the answer;
/// those that read return whatever was answered.
#[derive(Clone, Debug)]
pub struct User {
    http: Http,
    base: String,
    token: Option<String>,
    account: String,
}

impl User {
    pub(super) async fn log_in(
        http: &Http,
        endpoint: &str,
        account: &str,
        user: &str,
        key: &str,
    ) -> Result<Self> {
        let name = format!("{account}:{user}");
        let headers = [("x-auth-user", name.as_str()), ("x-auth-key", key)];
        let answer = http
            .send(Method::GET, &format!("{endpoint}/auth/v1.0"), &headers, "")
            .await?
            .success()?;
        let token = answer.header("x-auth-token").context("no token")?.to_owned();
        Ok(Self {
            token: Some(token),
            ..Self::without_login(http, endpoint, &format!("AUTH_{account}"))
        })
    }

    pub(super) fn without_login(http: &Http, endpoint: &str, account: &str) -> Self {
        Self {
            http: http.clone(),
            base: format!("{endpoint}/v1/{}", quote(account)),
            token: None,
            account: account.to_owned(),
        }
    }

    /// The account's name.
    #[must_use]
    pub fn account(&self) -> &str {
        &self.account
    }

    /// Any request. `path` is `container` or `container/object`, not encoded; `query` is encoded already.
    ///
    /// # Errors
    /// No answer.
    pub async fn request<V: AsRef<[u8]>>(
        &self,
        method: Method,
        path: &str,
        query: &str,
        headers: &[(&str, V)],
        body: impl Into<Bytes>,
    ) -> Result<Reply> {
        let mut all: Vec<(&str, &[u8])> = headers
            .iter()
            .map(|(name, value)| (*name, value.as_ref()))
            .collect();
        if let Some(token) = &self.token {
            all.push(("x-auth-token", token.as_bytes()));
        }
        let separator = if path.is_empty() { "" } else { "/" };
        let mark = if query.is_empty() { "" } else { "?" };
        let url = format!("{}{separator}{}{mark}{query}", self.base, quote(path));
        self.http.send(method, &url, &all, body).await
    }

    async fn done<V: AsRef<[u8]>>(
        &self,
        method: Method,
        path: &str,
        query: &str,
        headers: &[(&str, V)],
        body: impl Into<Bytes>,
    ) -> Result<Reply> {
        let what = format!("{method} {path}");
        self.request(method, path, query, headers, body)
            .await?
            .success()
            .context(what)
    }

    /// Creates the account (a virgin one answers as if it were there).
    ///
    /// # Errors
    /// Refused.
    pub async fn create_account(&self) -> Result<Reply> {
        self.done(Method::PUT, "", "", NO_HEADERS, "").await
    }

    /// Creates a container.
    ///
    /// # Errors
    /// Refused.
    pub async fn create_container<V: AsRef<[u8]>>(
        &self,
        container: &str,
        headers: &[(&str, V)],
    ) -> Result<Reply> {
        self.done(Method::PUT, container, "", headers, "").await
    }

    /// Deletes an empty container.
    ///
    /// # Errors
    /// Refused.
    pub async fn delete_container(&self, container: &str) -> Result<Reply> {
        self.done(Method::DELETE, container, "", NO_HEADERS, "").await
    }

    /// Sets metadata of a container.
    ///
    /// # Errors
    /// Refused.
    pub async fn post_container<V: AsRef<[u8]>>(
        &self,
        container: &str,
        headers: &[(&str, V)],
    ) -> Result<Reply> {
        self.done(Method::POST, container, "", headers, "").await
    }

    /// Reads a container's headers.
    ///
    /// # Errors
    /// No answer.
    pub async fn head_container(&self, container: &str) -> Result<Reply> {
        self.request(Method::HEAD, container, "", NO_HEADERS, "").await
    }

    /// The JSON listing of a container. A container server commits its pending rows when asked for it.
    ///
    /// # Errors
    /// Refused.
    pub async fn list(&self, container: &str) -> Result<Vec<Value>> {
        let reply = self
            .done(Method::GET, container, "format=json", NO_HEADERS, "")
            .await?;
        Ok(serde_json::from_slice(&reply.body)?)
    }

    /// Stores an object.
    ///
    /// # Errors
    /// Refused.
    pub async fn put<V: AsRef<[u8]>>(
        &self,
        container: &str,
        object: &str,
        headers: &[(&str, V)],
        body: impl Into<Bytes>,
    ) -> Result<Reply> {
        self.done(Method::PUT, &format!("{container}/{object}"), "", headers, body)
            .await
    }

    /// Replaces an object's metadata.
    ///
    /// # Errors
    /// Refused.
    pub async fn post<V: AsRef<[u8]>>(
        &self,
        container: &str,
        object: &str,
        headers: &[(&str, V)],
    ) -> Result<Reply> {
        self.done(Method::POST, &format!("{container}/{object}"), "", headers, "")
            .await
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// Refused, also because nothing was there.
    pub async fn delete(&self, container: &str, object: &str) -> Result<Reply> {
        self.done(
            Method::DELETE,
            &format!("{container}/{object}"),
            "",
            NO_HEADERS,
            "",
        )
        .await
    }

    /// Reads an object.
    ///
    /// # Errors
    /// No answer.
    pub async fn get(&self, container: &str, object: &str) -> Result<Reply> {
        self.request(Method::GET, &format!("{container}/{object}"), "", NO_HEADERS, "")
            .await
    }

    /// Reads an object's headers.
    ///
    /// # Errors
    /// No answer.
    pub async fn head(&self, container: &str, object: &str) -> Result<Reply> {
        self.request(Method::HEAD, &format!("{container}/{object}"), "", NO_HEADERS, "")
            .await
    }

    /// Stores a static large object over segments that are there already.
    ///
    /// # Errors
    /// Refused.
    pub async fn put_slo<V: AsRef<[u8]>>(
        &self,
        container: &str,
        object: &str,
        headers: &[(&str, V)],
        segments: &[Segment],
    ) -> Result<Reply> {
        let manifest: Vec<Value> = segments
            .iter()
            .map(|segment| {
                let mut entry = json!({"path": format!("/{}/{}", segment.container, segment.object)});
                if let Some(range) = &segment.range {
                    entry["range"] = json!(range);
                }
                entry
            })
            .collect();
        let path = format!("{container}/{object}");
        self.done(
            Method::PUT,
            &path,
            "multipart-manifest=put",
            headers,
            json!(manifest).to_string(),
        )
        .await
    }

    /// Stores a dynamic large object: its content is whatever begins with `prefix` in `segments`.
    ///
    /// # Errors
    /// Refused.
    pub async fn put_dlo(
        &self,
        container: &str,
        object: &str,
        segments: &str,
        prefix: &str,
    ) -> Result<Reply> {
        let manifest = format!("{}/{}", quote(segments), quote(prefix));
        self.put(container, object, &[("x-object-manifest", manifest)], "")
            .await
    }

    /// Stores a symlink. With an ETag it is a static one.
    ///
    /// # Errors
    /// Refused.
    pub async fn put_symlink(
        &self,
        container: &str,
        object: &str,
        target: &str,
        etag: Option<&str>,
    ) -> Result<Reply> {
        let target = quote(target);
        let mut headers = vec![("x-symlink-target", target.as_str())];
        headers.extend(etag.map(|etag| ("x-symlink-target-etag", etag)));
        self.put(container, object, &headers, "").await
    }

    /// Token and storage URL, for another client.
    #[must_use]
    pub fn session(&self) -> (Option<&str>, &str) {
        (self.token.as_deref(), &self.base)
    }
}
