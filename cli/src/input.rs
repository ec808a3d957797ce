//! Reading YAML documents from files and folders.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::Deserialize as _;
use serde_json::Value;

/// Files larger than this are not read, in bytes.
const MAX_FILE: u64 = 32 << 20;

/// Why the input cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// The operating system says no.
    #[error("{path} cannot be read")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Too large.
    #[error("{path} is larger than {} MiB: split it", MAX_FILE >> 20)]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// No YAML. The parser's message names line and column.
    #[error("{path}, document {number}: this is not YAML that can be used: {message}")]
    Yaml {
        /// The file.
        path: PathBuf,
        /// Which document of it, from 1.
        number: usize,
        /// What is wrong.
        message: String,
    },
    /// YAML, but no Kubernetes object.
    #[error("{path}, document {number}: {message}")]
    NoObject {
        /// The file.
        path: PathBuf,
        /// Which document of it, from 1.
        number: usize,
        /// What is wrong.
        message: String,
    },
    /// Two objects of one kind and name.
    #[error("{path}: {kind} {namespace}/{name} is also in {other}: remove one of them")]
    Twice {
        /// The second file.
        path: PathBuf,
        /// The first file.
        other: PathBuf,
        /// Kind.
        kind: String,
        /// Namespace.
        namespace: String,
        /// Name.
        name: String,
    },
}

/// One object of the input. It may hold a password: there is no Debug.
#[derive(Clone)]
pub struct Object {
    /// The file where it stands; none in a cluster.
    pub path: Option<PathBuf>,
    /// The whole object.
    pub value: Value,
}

/// Namespace and name of an object.
pub type Key = (String, String);

/// The objects of the input by kind.
#[derive(Default)]
pub struct Objects {
    /// `SyncPolicy` objects.
    pub policies: BTreeMap<Key, Object>,
    /// `Secret` objects.
    pub secrets: BTreeMap<Key, Object>,
    /// `ConfigMap` objects.
    pub config_maps: BTreeMap<Key, Object>,
    /// What was passed over, to be said.
    pub notes: Vec<String>,
}

impl Objects {
    /// Adds a policy that a cluster has.
    pub fn add_policy(&mut self, value: Value) {
        let key = key_of(&value);
        self.policies.insert(key, Object { path: None, value });
    }
}

/// Namespace and name of an object.
fn key_of(object: &Value) -> Key {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    let namespace = text("/metadata/namespace").unwrap_or("default");
    (
        namespace.to_owned(),
        text("/metadata/name").unwrap_or_default().to_owned(),
    )
}

/// Reads files and folders.
///
/// # Errors
/// At the first thing that cannot be read.
pub fn read(paths: &[PathBuf]) -> Result<Objects, InputError> {
    let mut objects = Objects::default();
    for path in paths {
        for file in files_of(path)? {
            read_file(&file, &mut objects)?;
        }
    }
    Ok(objects)
}

fn files_of(path: &Path) -> Result<Vec<PathBuf>, InputError> {
    let io = |source| InputError::Io {
        path: path.to_owned(),
        source,
    };
    if !std::fs::metadata(path).map_err(io)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(io)? {
        let file = entry.map_err(io)?.path();
        let named = file
            .extension()
            .is_some_and(|end| end == "yaml" || end == "yml" || end == "json");
        if named && file.is_file() {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

fn read_file(path: &Path, objects: &mut Objects) -> Result<(), InputError> {
    let io = |source| InputError::Io {
        path: path.to_owned(),
        source,
    };
    let file = std::fs::File::open(path).map_err(io)?;
    let mut text = String::new();
    file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(io)?;
    if text.len() as u64 > MAX_FILE {
        return Err(InputError::TooLarge {
            path: path.to_owned(),
        });
    }
    for (index, document) in serde_yaml::Deserializer::from_str(&text).enumerate() {
        let number = index + 1;
        let yaml = |error: serde_yaml::Error| InputError::Yaml {
            path: path.to_owned(),
            number,
            message: error.to_string(),
        };
        let mut value = serde_yaml::Value::deserialize(document).map_err(yaml)?;
        value.apply_merge().map_err(yaml)?;
        let value: Value = serde_yaml::from_value(value).map_err(yaml)?;
        add(path, number, value, objects)?;
    }
    Ok(())
}

fn add(path: &Path, number: usize, value: Value, objects: &mut Objects) -> Result<(), InputError> {
    let no_object = |message: &str| InputError::NoObject {
        path: path.to_owned(),
        number,
        message: message.to_owned(),
    };
    if value.is_null() {
        return Ok(());
    }
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str);
    let (Some(version), Some(kind)) = (text("/apiVersion"), text("/kind")) else {
        return Err(no_object(
            "this is no Kubernetes object: apiVersion and kind are missing",
        ));
    };
    let (version, kind) = (version.to_owned(), kind.to_owned());
    // What `kubectl get -o yaml` prints for several objects.
    if kind.ends_with("List")
        && let Some(Value::Array(items)) = value.get("items")
    {
        return items
            .iter()
            .try_for_each(|item| add(path, number, item.clone(), objects));
    }
    let (namespace, name) = key_of(&value);
    let group = format!("{}/", onespace_crds::GROUP);
    let ours = format!("{group}{}", onespace_crds::VERSION);
    let map = match (version.as_str(), kind.as_str()) {
        (version, "SyncPolicy") if version == ours => &mut objects.policies,
        ("v1", "Secret") => &mut objects.secrets,
        ("v1", "ConfigMap") => &mut objects.config_maps,
        (version, kind) if version.starts_with(&group) => {
            return Err(no_object(&format!(
                "{version} {kind} is unknown: write {ours} SyncPolicy"
            )));
        }
        (version, kind) => {
            objects.notes.push(format!(
                "{}: {version} {kind} {name} is passed over",
                path.display()
            ));
            return Ok(());
        }
    };
    let object = Object {
        path: Some(path.to_owned()),
        value,
    };
    if let Some(other) = map.insert((namespace.clone(), name.clone()), object) {
        return Err(InputError::Twice {
            path: path.to_owned(),
            other: other.path.unwrap_or_default(),
            kind,
            namespace,
            name,
        });
    }
    Ok(())
}
