//! The files that an operator makes, as agents see them.

use std::path::Path;

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use onespace_core::load::Files;

use super::{Cluster, NAMESPACE, text};

impl Cluster {
    /// The files that the operator has made, as a pod would see them.
    ///
    /// # Errors
    /// No answer.
    pub async fn files(&self) -> Result<Files> {
        let ours = format!("/api/v1/namespaces/{NAMESPACE}");
        let config_maps = self.get(&format!("{ours}/configmaps")).await?;
        let secrets = self.get(&format!("{ours}/secrets")).await?;
        let mut files = Files::default();
        for object in config_maps["items"].as_array().into_iter().flatten() {
            let name = text(object, "/metadata/name")?;
            let data = object["data"].as_object().into_iter().flatten();
            for (key, value) in data {
                let bytes = value.as_str().unwrap_or_default().as_bytes().to_vec();
                if name == "onespace-index" {
                    files.index = bytes;
                } else if let Some(shard) = name.strip_prefix("onespace-mappings-") {
                    assert_eq!(*key, format!("{shard}.json"));
                    files.mappings.insert(shard.to_owned(), bytes.into());
                }
            }
        }
        for object in secrets["items"].as_array().into_iter().flatten() {
            let name = text(object, "/metadata/name")?;
            let Some(shard) = name.strip_prefix("onespace-credentials-") else {
                continue;
            };
            for value in object["data"]
                .as_object()
                .into_iter()
                .flat_map(|data| data.values())
            {
                let bytes = STANDARD.decode(value.as_str().unwrap_or_default())?;
                files.credentials.insert(shard.to_owned(), bytes.into());
            }
        }
        Ok(files)
    }

    /// Names of the policies among the mappings, once the files belong together; none while they do not.
    ///
    /// # Errors
    /// No answer.
    pub async fn mapped(&self) -> Result<Option<Vec<String>>> {
        let Ok(set) = onespace_core::load::load(&self.files().await?) else {
            return Ok(None);
        };
        let refused = set
            .refused
            .iter()
            .map(|refused| format!("refused {}", refused.reason));
        let mut names: Vec<String> = set
            .mappings
            .iter()
            .map(|mapping| format!("{}/{}", mapping.policy.namespace, mapping.policy.name))
            .chain(refused)
            .collect();
        names.sort();
        Ok(Some(names))
    }

    /// Waits until exactly these are mapped.
    ///
    /// # Errors
    /// They never were.
    pub async fn until_mapped(&self, names: &[&str]) -> Result<()> {
        let what = format!("mapped: {names:?}");
        self.until(&what, async || {
            let mapped = self.mapped().await?;
            Ok(mapped.filter(|mapped| mapped == names).map(drop))
        })
        .await
    }

    /// Writes the files into two folders, as a kubelet does for a pod, in the order in which they may be read.
    ///
    /// # Errors
    /// A folder cannot be written.
    pub async fn mount(&self, mappings: &Path, credentials: &Path) -> Result<()> {
        let files = self.files().await?;
        for folder in [mappings, credentials] {
            std::fs::create_dir_all(folder)?;
        }
        let put = |folder: &Path, name: &str, bytes: &[u8]| -> Result<()> {
            let new = folder.join(format!(".{name}.new"));
            std::fs::write(&new, bytes)?;
            std::fs::rename(new, folder.join(name))?;
            Ok(())
        };
        for (shard, bytes) in &files.credentials {
            put(credentials, &format!("{shard}.json"), bytes)?;
        }
        for (shard, bytes) in &files.mappings {
            put(mappings, &format!("{shard}.json"), bytes)?;
        }
        if !files.index.is_empty() {
            put(mappings, "index.json", &files.index)?;
        }
        for (folder, shards) in [(mappings, &files.mappings), (credentials, &files.credentials)] {
            for file in std::fs::read_dir(folder)? {
                let path = file?.path();
                let shard = path
                    .file_stem()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned();
                if shard != "index" && !shards.contains_key(&shard) {
                    std::fs::remove_file(path)?;
                }
            }
        }
        Ok(())
    }
}
