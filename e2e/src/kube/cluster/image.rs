//! Images without Docker: a docker-archive with one layer, made of programs and the libraries that they need.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// What keeps a pod's namespaces: every node has it.
pub const PAUSE: &str = "onespace.dev/pause:test";

/// The user of images that need no other.
const NOBODY: &str = "65532:65532";

/// An image, before it is written.
#[derive(Clone, Debug)]
pub struct Image {
    name: String,
    entrypoint: Vec<String>,
    user: String,
    environment: Vec<String>,
    /// Files by their place in the image; from where they are taken.
    files: BTreeMap<PathBuf, PathBuf>,
}

impl Image {
    /// An empty one, for a user without rights.
    #[must_use]
    pub fn new(name: &str, entrypoint: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            entrypoint: entrypoint.iter().map(|word| (*word).to_owned()).collect(),
            user: NOBODY.to_owned(),
            environment: vec!["PATH=/usr/local/bin:/usr/bin:/bin".to_owned()],
            files: BTreeMap::new(),
        }
    }

    /// An image with one of our programs, as the Dockerfile makes them: it is the entry point, beside the system's CAs.
    ///
    /// # Errors
    /// It was not built.
    pub fn of_program(name: &str, program: &str, user: &str) -> Result<Self> {
        let inside = format!("/usr/local/bin/{program}");
        let mut image = Self::new(name, &[&inside]).program(&crate::programs::program(program)?, &inside)?;
        user.clone_into(&mut image.user);
        let authorities = Path::new("/etc/ssl/certs/ca-certificates.crt");
        if authorities.exists() {
            image = image.file(authorities, "/etc/ssl/certs/ca-certificates.crt");
        }
        Ok(image)
    }

    /// The image's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs as this user.
    #[must_use]
    pub fn user(mut self, user: &str) -> Self {
        user.clone_into(&mut self.user);
        self
    }

    /// With this file.
    #[must_use]
    pub fn file(mut self, from: &Path, inside: &str) -> Self {
        self.files.insert(PathBuf::from(inside), from.to_owned());
        self
    }

    /// With this program, and the libraries and the loader that it needs at their own places.
    ///
    /// # Errors
    /// It is missing.
    pub fn program(mut self, from: &Path, inside: &str) -> Result<Self> {
        let needs = libraries(from)?;
        self.files.insert(PathBuf::from(inside), from.to_owned());
        self.files
            .extend(needs.into_iter().map(|path| (path.clone(), path)));
        Ok(self)
    }

    /// With everything below this folder, and what its shared libraries need at their own places; but for folders of
    /// these names, and libraries to link with.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn tree(mut self, from: &Path, inside: &Path, without: &[&str]) -> Result<Self> {
        let mut waiting = vec![from.to_owned()];
        while let Some(folder) = waiting.pop() {
            for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
                let (entry, path) = entry.map(|entry| (entry.file_type(), entry.path()))?;
                let name = path
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned();
                let is_folder = entry?.is_dir();
                if name.ends_with(".a") {
                    continue;
                }
                if !is_folder {
                    if name.contains(".so") {
                        let needs = libraries(&path)?;
                        self.files
                            .extend(needs.into_iter().map(|path| (path.clone(), path)));
                    }
                    self.files.insert(inside.join(path.strip_prefix(from)?), path);
                } else if !without.contains(&name.as_str()) {
                    waiting.push(path);
                }
            }
        }
        Ok(self)
    }

    /// Writes the archive.
    ///
    /// # Errors
    /// A file is missing, or there is no room.
    pub fn write(&self, archive: &Path) -> Result<()> {
        let layer = archive.with_extension("layer");
        let digest = self.write_layer(&layer)?;
        let config = json!({
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
            "os": "linux",
            "config": {
                "Entrypoint": self.entrypoint,
                "User": self.user,
                "Env": self.environment,
                "WorkingDir": "/",
            },
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
            "history": [{"created_by": "onespace's tests"}],
        });
        let manifest = json!([{"Config": "config.json", "RepoTags": [self.name], "Layers": ["layer.tar"]}]);
        let mut tar = tar::Builder::new(File::create(archive)?);
        append_text(&mut tar, "manifest.json", &manifest)?;
        append_text(&mut tar, "config.json", &config)?;
        tar.append_path_with_name(&layer, "layer.tar")?;
        tar.into_inner()?.flush()?;
        std::fs::remove_file(layer)?;
        Ok(())
    }

    /// Returns the digest of the layer.
    fn write_layer(&self, layer: &Path) -> Result<String> {
        let output = Hashing {
            file: std::io::BufWriter::new(File::create(layer)?),
            hash: Sha256::new(),
        };
        let mut tar = tar::Builder::new(output);
        // containerd knows no sparse files.
        tar.sparse(false);
        let mut temporary = tar::Header::new_gnu();
        temporary.set_entry_type(tar::EntryType::Directory);
        temporary.set_mode(0o1777);
        temporary.set_size(0);
        tar.append_data(&mut temporary, "tmp/", std::io::empty())?;
        for (inside, from) in &self.files {
            let inside = inside.strip_prefix("/").unwrap_or(inside);
            // A link within a tree stays one; a library's link is needed as a file, its target has another name.
            tar.follow_symlinks(!from.is_symlink() || !from.read_link()?.is_relative() || is_library(from));
            tar.append_path_with_name(from, inside)
                .with_context(|| from.display().to_string())?;
        }
        let mut output = tar.into_inner()?;
        output.file.flush()?;
        Ok(hex::encode(output.hash.finalize()))
    }
}

fn is_library(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.to_string_lossy().contains(".so"))
}

fn append_text(tar: &mut tar::Builder<File>, name: &str, text: &Value) -> Result<()> {
    let text = text.to_string();
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(text.len() as u64);
    Ok(tar.append_data(&mut header, name, text.as_bytes())?)
}

/// What the loader would load for this program, and the loader: none for a program that is linked statically.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    ensure!(program.exists(), "{} is missing", program.display());
    let output = Command::new("ldd").arg(program).output().context("ldd")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let path = |line: &str| {
        let place = line.split_once("=>").map_or(line, |(_, place)| place);
        let place = place.split_whitespace().next()?;
        place.starts_with('/').then(|| PathBuf::from(place))
    };
    Ok(text.lines().filter_map(path).collect())
}

struct Hashing {
    file: std::io::BufWriter<File>,
    hash: Sha256,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

/// The image of every pod's first process: it waits.
///
/// # Errors
/// The system has no `sleep`.
pub(super) fn pause() -> Result<Image> {
    Image::new(PAUSE, &["/bin/sleep", "infinity"]).program(Path::new("/bin/sleep"), "/bin/sleep")
}
