//! One entry of `containers` or `migrations`.

use anyhow::{Context as _, bail};
use serde_json::{Map, Value, json};

/// Which list an entry stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Container,
    Migration,
}

/// An entry as policy and Secret.
pub(super) struct Entry {
    /// The policy's spec, without credentials.
    pub spec: Value,
    /// `stringData` of its Secret.
    pub secret: Value,
    /// What is worth knowing.
    pub notes: Vec<String>,
    /// What a person must correct.
    pub problems: Vec<String>,
}

impl Entry {
    /// Translates one entry. What cannot be said in a policy is a problem that names the option, and never its value.
    pub fn translate(kind: Kind, entry: &Map<String, Value>) -> anyhow::Result<Self> {
        let mut options = Options {
            entry: entry.clone(),
            notes: Vec::new(),
            problems: Vec::new(),
        };
        let mut spec = json!({"source": {}, "target": {}});
        let mut put = |pointer: &[&str], value: Value| {
            let mut at = &mut spec;
            for name in pointer {
                at = &mut at[*name];
            }
            *at = value;
        };

        let bucket = options.text("aws_bucket")?.context("aws_bucket is missing")?;
        let account = options.text("account")?.context("account is missing")?;
        let container = match options.text("container")? {
            Some(container) => container,
            // 1space names the container of such a migration after each bucket.
            None if kind == Kind::Migration && bucket == "/*" => "/*".to_owned(),
            None => bail!("container is missing"),
        };
        let swift = match options.text("protocol")?.as_deref() {
            None | Some("s3") => false,
            Some("swift") => true,
            Some(other) => bail!("protocol {other:?} is unknown: s3 or swift"),
        };
        let archive = options.flag("retain_local")? == Some(false);
        let mode = match kind {
            Kind::Migration => "Migrate",
            Kind::Container if archive => "Archive",
            Kind::Container => "Sync",
        };
        put(&["mode"], json!(mode));
        put(&["source"], json!({"account": account, "container": container}));
        put(&["target", "protocol"], json!(if swift { "Swift" } else { "S3" }));
        put(&["target", "bucket"], json!(bucket));

        let endpoint = options.text("aws_endpoint")?;
        if let Some(endpoint) = &endpoint {
            put(&["target", "endpoint"], json!(endpoint));
        }
        if let Some(prefix) = options.text("custom_prefix")? {
            put(&["target", "prefix"], json!(prefix));
        }
        match options.flag("encryption")? {
            // Yes is the default where 1space heeded it: at AWS.
            Some(false) if !swift => put(&["target", "encryption"], json!({"type": "None"})),
            _ => {}
        }

        let mut secret = Map::new();
        let names = if swift {
            [("aws_identity", "USERNAME"), ("aws_secret", "PASSWORD")]
        } else {
            [
                ("aws_identity", "AWS_ACCESS_KEY_ID"),
                ("aws_secret", "AWS_SECRET_ACCESS_KEY"),
            ]
        };
        for (option, key) in names {
            let value = options
                .text(option)?
                .with_context(|| format!("{option} is missing"))?;
            secret.insert(key.to_owned(), json!(value));
        }
        if let Some(token) = options
            .text("aws_session_token")?
            .filter(|token| !token.is_empty())
        {
            secret.insert("AWS_SESSION_TOKEN".to_owned(), json!(token));
        }
        let secure = endpoint
            .as_deref()
            .is_none_or(|endpoint| endpoint.starts_with("https:"));
        if let Some(proxy) = options.proxy(secure)? {
            let (url, login) = without_login(&proxy);
            put(&["target", "httpProxy"], json!(url));
            if let Some((username, password)) = login {
                secret.insert("PROXY_USERNAME".to_owned(), json!(username));
                secret.insert("PROXY_PASSWORD".to_owned(), json!(password));
            }
        }

        options.swift_options(&mut put)?;

        for (option, field) in [
            ("copy_after", "copyAfter"),
            ("propagate_expiration_offset", "expirationOffset"),
            ("remote_delete_after", "remoteDeleteAfter"),
            ("remote_delete_after_addition", "segmentsDeleteAfterAddition"),
        ] {
            if let Some(seconds) = options.number(option)?.filter(|seconds| *seconds > 0) {
                put(&[field], json!(duration(seconds)));
            }
        }
        for (option, field) in [
            ("retain_local_segments", "retainLocalSegments"),
            ("propagate_delete", "propagateDelete"),
            ("propagate_expiration", "propagateExpiration"),
            ("sync_container_metadata", "containerMetadata"),
            ("sync_container_acl", "containerAcl"),
            ("convert_dlo", "convertDlo"),
        ] {
            match options.flag(option)? {
                Some(value) => put(&[field], json!(value)),
                // 1space propagates unless told not to; a policy of mode Archive does not.
                None if option == "propagate_delete" && mode == "Archive" => {
                    options
                        .notes
                        .push("propagateDelete: true is 1space's default, written out".to_owned());
                    put(&[field], json!(true));
                }
                None => {}
            }
        }
        if let Some(size) = options.number("min_segment_size")?.filter(|size| *size > 0) {
            put(&["minSegmentSize"], json!(size));
        }
        if let Some(pattern) = options
            .text("exclude_pattern")?
            .filter(|pattern| !pattern.is_empty())
        {
            // A pattern that Rust does not take is told by the validation of the result: leaving it out would copy
            // what must not be copied.
            put(&["exclude"], json!(pattern));
        }
        if let Some(criteria) = options.entry.remove("selection_criteria")
            && criteria.as_object().is_none_or(|criteria| !criteria.is_empty())
        {
            match selection(&criteria) {
                Ok(tree) => {
                    options
                        .notes
                        .push("select compares values exactly, 1space in any case".to_owned());
                    put(&["select"], json!({"match": tree}));
                }
                Err(problem) => {
                    // An invalid policy instead of one that copies more.
                    options
                        .problems
                        .push(format!("selection_criteria cannot be translated: {problem}"));
                    put(&["select"], json!({"match": {}}));
                }
            }
        }
        for (option, field) in [("merge_namespaces", "merge"), ("restore_object", "restore")] {
            if options.flag(option)? == Some(true) {
                put(&["shunt", field], json!(true));
            }
        }
        if kind == Kind::Migration {
            if let Some(prefix) = options.text("prefix")?.filter(|prefix| !prefix.is_empty()) {
                put(&["migrate", "prefix"], json!(prefix));
            }
            if let Some(seconds) = options.number("older_than")?.filter(|seconds| *seconds > 0) {
                put(&["migrate", "olderThan"], json!(duration(seconds)));
            }
            if let Some(value) = options.flag("propagate_account_metadata")? {
                put(&["migrate", "accountMetadata"], json!(value));
            }
            if let Some(size) = options.number("segment_size")?.filter(|size| *size > 0) {
                put(&["migrate", "segmentSize"], json!(size));
            }
        }

        let Options {
            entry,
            mut notes,
            problems,
        } = options;
        notes.extend(
            entry
                .keys()
                .map(|name| format!("{} is dropped: it is unknown here", name.escape_debug())),
        );
        Ok(Self {
            spec,
            secret: Value::Object(secret),
            notes,
            problems,
        })
    }
}

/// The options that are not translated yet.
struct Options {
    entry: Map<String, Value>,
    notes: Vec<String>,
    problems: Vec<String>,
}

impl Options {
    fn take(&mut self, name: &str) -> Option<Value> {
        self.entry.remove(name).filter(|value| !value.is_null())
    }

    fn text(&mut self, name: &str) -> anyhow::Result<Option<String>> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => bail!("{name} must be a text"),
        }
    }

    fn flag(&mut self, name: &str) -> anyhow::Result<Option<bool>> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(_) => bail!("{name} must be true or false"),
        }
    }

    /// A whole number; 1space takes it as text, too.
    fn number(&mut self, name: &str) -> anyhow::Result<Option<u64>> {
        let Some(value) = self.take(name) else {
            return Ok(None);
        };
        let number = value.as_u64().or_else(|| value.as_str()?.parse().ok());
        number
            .map(Some)
            .with_context(|| format!("{name} must be a whole number"))
    }

    /// The proxy for the endpoint's scheme.
    fn proxy(&mut self, secure: bool) -> anyhow::Result<Option<String>> {
        let (used, other) = if secure {
            ("https_proxy", "http_proxy")
        } else {
            ("http_proxy", "https_proxy")
        };
        let proxy = self.text(used)?.filter(|proxy| !proxy.is_empty());
        if self.text(other)?.is_some_and(|proxy| !proxy.is_empty()) {
            self.notes
                .push(format!("{other} is dropped: it is not for the endpoint's scheme"));
        }
        Ok(proxy)
    }

    fn swift_options(&mut self, put: &mut impl FnMut(&[&str], Value)) -> anyhow::Result<()> {
        match self.text("auth_type")?.as_deref() {
            None | Some("swift") => {}
            Some("keystone_v2") => put(&["target", "swift", "auth", "type"], json!("KeystoneV2")),
            Some("keystone_v3") => put(&["target", "swift", "auth", "type"], json!("KeystoneV3")),
            Some(other) => bail!("auth_type {other:?} is unknown: swift, keystone_v2 or keystone_v3"),
        }
        for (option, path) in [
            ("tenant_name", &["target", "swift", "auth", "tenantName"][..]),
            ("project_name", &["target", "swift", "auth", "projectName"]),
            (
                "project_domain_name",
                &["target", "swift", "auth", "projectDomainName"],
            ),
            ("user_domain_name", &["target", "swift", "auth", "userDomainName"]),
            ("remote_account", &["target", "swift", "account"]),
            ("storage_policy", &["target", "swift", "storagePolicy"]),
        ] {
            if let Some(text) = self.text(option)?.filter(|text| !text.is_empty()) {
                put(path, json!(text));
            }
        }
        Ok(())
    }
}

/// Seconds as a policy writes them: `30d`, `1h30m`.
fn duration(mut seconds: u64) -> String {
    let mut text = String::new();
    for (unit, length) in [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)] {
        if seconds >= length {
            text += &format!("{}{unit}", seconds / length);
            seconds %= length;
        }
    }
    text
}

/// A proxy's URL without its login.
fn without_login(url: &str) -> (String, Option<(String, String)>) {
    let Some((scheme, rest)) = url.split_once("://") else {
        return (format!("http://{url}"), None);
    };
    let Some((login, host)) = rest.rsplit_once('@') else {
        return (url.to_owned(), None);
    };
    let (username, password) = login.split_once(':').unwrap_or((login, ""));
    (
        format!("{scheme}://{host}"),
        Some((username.to_owned(), password.to_owned())),
    )
}

/// 1space's criteria, `{AND: [..]}`, `{OR: [..]}`, `{NOT: {..}}` or `{header: value}`, as the tree of a policy. Too
/// deep a tree comes out as one that the schema refuses.
fn selection(criteria: &Value) -> Result<Value, String> {
    let criteria = criteria.as_object().ok_or("a criterion must be an object")?;
    let (Some((name, value)), 1) = (criteria.iter().next(), criteria.len()) else {
        return Err("a criterion must have exactly one entry".to_owned());
    };
    let branches = || -> Result<Vec<Value>, String> {
        value
            .as_array()
            .ok_or("AND and OR take lists")?
            .iter()
            .map(selection)
            .collect()
    };
    match name.as_str() {
        "AND" => Ok(json!({"all": branches()?})),
        "OR" => Ok(json!({"any": branches()?})),
        "NOT" => Ok(json!({"not": selection(value)?})),
        header => {
            let lower = header.to_ascii_lowercase();
            let name = lower.strip_prefix("x-object-meta-").ok_or_else(|| {
                format!("{header:?} is no metadata of an object: only X-Object-Meta-* can be selected by")
            })?;
            let value = value
                .as_str()
                .ok_or_else(|| format!("the value of {header:?} must be a text"))?;
            Ok(json!({"metadata": {"name": name, "value": value}}))
        }
    }
}
