//! `onespace render`

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use onespace_core::reason::PolicyFault;
use onespace_core::shard::fold;
use onespace_core::validate::{ConfigMapObject, Finding, SecretObject, ValidPolicy, resolve};
use serde::de::DeserializeOwned;

use crate::args::{Inputs, Render};
use crate::check::check;
use crate::input::{self, Key, Object, Objects};
use crate::write_set::Folders;

/// Turns the input into the agents' files. `false` = something is wrong with a policy; then nothing was written.
///
/// # Errors
/// When the input cannot be read, or the files cannot be written.
pub fn run(args: &Render, out: &mut dyn Write, err: &mut dyn Write) -> anyhow::Result<bool> {
    let Render {
        inputs: Inputs { files },
        mappings,
        credentials,
    } = args;
    let objects = input::read(files)?;
    for note in &objects.notes {
        writeln!(err, "note: {note}")?;
    }
    if objects.policies.is_empty() {
        writeln!(
            err,
            "note: there is no SyncPolicy in the input: agents will have nothing to do"
        )?;
    }

    let mut good = true;
    let mut all_mappings = Vec::new();
    let mut all_credentials = BTreeMap::new();
    for verdict in check(&objects)? {
        let resolved = verdict
            .result
            .clone()
            .and_then(|policy| find_references(&objects, &verdict.key.0, &policy));
        match resolved {
            Ok((mapping, login)) => {
                all_credentials.insert(mapping.target.credential.0.clone(), login);
                all_mappings.push(mapping);
            }
            Err(findings) => {
                good = false;
                for line in verdict.lines(&findings) {
                    writeln!(err, "{line}")?;
                }
            }
        }
    }
    if !good {
        writeln!(err, "error: nothing was written: correct what is named above")?;
        return Ok(false);
    }

    let folders = Folders::open(mappings, credentials)?;
    let files = fold(
        &all_mappings,
        &all_credentials,
        &folders.previous(),
        &fresh_revision(),
    )?;
    folders
        .write(&files)
        .context("the set is not complete, agents keep the last one: run this again")?;
    writeln!(
        out,
        "{} {} written to {}",
        all_mappings.len(),
        if all_mappings.len() == 1 {
            "mapping"
        } else {
            "mappings"
        },
        mappings.display()
    )?;
    Ok(true)
}

/// The policy's mapping and credentials, from the Secret and ConfigMap that it names.
pub(crate) fn find_references(
    objects: &Objects,
    namespace: &str,
    policy: &ValidPolicy,
) -> Result<
    (
        Arc<onespace_core::mapping::Mapping>,
        onespace_core::credentials::Credentials,
    ),
    Vec<Finding>,
> {
    let key = |name: &str| (namespace.to_owned(), name.to_owned());
    let secret: Option<SecretObject> =
        object(&objects.secrets, &key(&policy.secret), PolicyFault::SecretInvalid)?;
    let config_map: Option<ConfigMapObject> = match &policy.ca_bundle {
        Some((name, _)) => object(&objects.config_maps, &key(name), PolicyFault::ConfigMapInvalid)?,
        None => None,
    };
    resolve(policy, secret.as_ref(), config_map.as_ref())
}

fn object<T: DeserializeOwned>(
    objects: &BTreeMap<Key, Object>,
    key: &Key,
    fault: PolicyFault,
) -> Result<Option<T>, Vec<Finding>> {
    let Some(object) = objects.get(key) else {
        return Ok(None);
    };
    // The parser's message could quote a password.
    serde_json::from_value(object.value.clone()).map(Some).map_err(|_| {
        let message = format!(
            "{} has another form than a Secret or ConfigMap has: its values must be texts, put numbers into quotes",
            object.path.as_deref().unwrap_or(Path::new("the input")).display()
        );
        vec![Finding::new(format!("{}/{}", key.0, key.1), fault, message)]
    })
}

/// A word that was never used before.
fn fresh_revision() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let random = RandomState::new().build_hasher().finish();
    format!("{:x}-{random:x}", now.as_nanos())
}
