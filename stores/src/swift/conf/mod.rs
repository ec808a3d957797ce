//! Swift's own configuration: `swift.conf` and `container-server.conf`.

mod ini;

use std::path::{Path, PathBuf};
use std::time::Duration;

use onespace_core::naming::HashPath;

use self::ini::{Ini, IniError};

/// How long Swift keeps tombstones where nothing else is configured.
const DEFAULT_RECLAIM_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// What is wrong with a configuration file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfError {
    /// It cannot be opened.
    #[error(
        "{path} cannot be read ({cause}): point --swift-dir at the folder that has Swift's configuration"
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: String,
    },
    /// Its content cannot be used.
    #[error("{path}: {what}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Section, option and remedy.
        what: String,
    },
}

/// `swift.conf`.
#[derive(Clone, Debug)]
pub struct SwiftConf {
    /// The secret that every path is hashed with.
    pub hash_path: HashPath,
    /// The storage policies, by index.
    pub policies: Vec<Policy>,
}

/// A storage policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Its index, as in rows and headers.
    pub index: u32,
    /// Its name.
    pub name: String,
}

impl Policy {
    /// The file name of its object ring.
    #[must_use]
    pub fn ring_file(&self) -> String {
        match self.index {
            0 => "object.ring.gz".to_owned(),
            index => format!("object-{index}.ring.gz"),
        }
    }
}

impl SwiftConf {
    /// Its name.
    pub const FILE: &str = "swift.conf";

    /// Reads `swift.conf` in this folder.
    ///
    /// # Errors
    /// When it is not there, is malformed, or has neither hash path prefix nor suffix.
    pub fn load(swift_dir: &Path) -> Result<Self, ConfError> {
        let path = swift_dir.join(Self::FILE);
        let ini = parse(&path, &read(&path)?)?;
        Self::from_ini(&ini).map_err(|IniError(what)| ConfError::Malformed { path, what })
    }

    fn from_ini(ini: &Ini) -> Result<Self, IniError> {
        let option = |name| as_bytes(ini.get("swift-hash", name));
        let hash_path = HashPath {
            prefix: option("swift_hash_path_prefix")?,
            suffix: option("swift_hash_path_suffix")?,
        };
        if hash_path.prefix.is_empty() && hash_path.suffix.is_empty() {
            return Err(IniError(
                "[swift-hash] has neither swift_hash_path_prefix nor swift_hash_path_suffix: use the cluster's own swift.conf"
                    .to_owned(),
            ));
        }
        let mut policies = Vec::new();
        for section in ini.sections() {
            let Some(index) = section.strip_prefix("storage-policy:") else {
                continue;
            };
            let index = index.trim().parse().map_err(|_| {
                IniError(format!(
                    "[{section}] does not end in a policy's index: correct its name"
                ))
            })?;
            let name = ini
                .get(section, "name")?
                .unwrap_or_else(|| format!("Policy-{index}"));
            policies.push(Policy { index, name });
        }
        if policies.is_empty() {
            policies.push(Policy {
                index: 0,
                name: "Policy-0".to_owned(),
            });
        }
        policies.sort_by_key(|policy| policy.index);
        Ok(Self { hash_path, policies })
    }
}

fn as_bytes(value: Result<Option<String>, IniError>) -> Result<Vec<u8>, IniError> {
    Ok(value?.map(|value| ini::bytes(&value)).unwrap_or_default())
}

/// What of `container-server.conf` matters for reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerServerConf {
    /// Where the server listens; `0.0.0.0` is every address of the node.
    pub bind_ip: String,
    /// The port.
    pub bind_port: u16,
    /// The folder of the devices.
    pub devices: PathBuf,
    /// Whether a device counts only while something is mounted there: an unmounted disk is not an empty one.
    pub mount_check: bool,
    /// How long tombstones are kept.
    pub reclaim_age: Duration,
}

impl ContainerServerConf {
    /// Reads `container-server.conf`, or the files of `container-server.conf.d` in the order of their names.
    ///
    /// # Errors
    /// When neither is there, or an option has a value that Swift would refuse.
    pub fn load(swift_dir: &Path) -> Result<Self, ConfError> {
        let path = swift_dir.join("container-server.conf");
        let folder = swift_dir.join("container-server.conf.d");
        let ini = if !path.exists() && folder.is_dir() {
            read_folder(&folder)?
        } else {
            parse(&path, &read(&path)?)?
        };
        Self::from_ini(&ini).map_err(|IniError(what)| ConfError::Malformed { path, what })
    }

    fn from_ini(ini: &Ini) -> Result<Self, IniError> {
        // Options of all servers stand in [DEFAULT]; the server's own section may have or `set` them as well.
        let option = |name: &str| {
            let app = "app:container-server";
            Ok(match ini.get(app, &format!("set {name}"))? {
                Some(value) => Some(value),
                None => ini.get(app, name)?,
            })
        };
        let bind_port = match option("bind_port")? {
            None => 6201,
            Some(value) => number("DEFAULT", "bind_port", &value, "a port, 1 to 65535")?,
        };
        // Who removes tombstones is the replicator.
        let reclaim_age = match ini.get("container-replicator", "reclaim_age")? {
            None => DEFAULT_RECLAIM_AGE,
            Some(value) => {
                let seconds: f64 = number(
                    "container-replicator",
                    "reclaim_age",
                    &value,
                    "a number of seconds",
                )?;
                Duration::try_from_secs_f64(seconds).map_err(|_| {
                    refused(
                        "container-replicator",
                        "reclaim_age",
                        &value,
                        "a number of seconds",
                    )
                })?
            }
        };
        Ok(Self {
            bind_ip: option("bind_ip")?.unwrap_or_else(|| "0.0.0.0".to_owned()),
            bind_port,
            devices: option("devices")?
                .unwrap_or_else(|| "/srv/node".to_owned())
                .into(),
            mount_check: option("mount_check")?.is_none_or(|value| is_true(&value)),
            reclaim_age,
        })
    }
}

fn number<T: std::str::FromStr>(
    section: &str,
    option: &str,
    value: &str,
    wanted: &str,
) -> Result<T, IniError> {
    value
        .trim()
        .parse()
        .map_err(|_| refused(section, option, value, wanted))
}

fn refused(section: &str, option: &str, value: &str, wanted: &str) -> IniError {
    IniError(format!(
        "`{option}` in [{section}] is `{value}`, it must be {wanted}"
    ))
}

/// What Swift takes for true; anything else is false.
fn is_true(value: &str) -> bool {
    ["true", "1", "yes", "on", "t", "y"].contains(&value.to_lowercase().as_str())
}

fn read(path: &Path) -> Result<Vec<u8>, ConfError> {
    std::fs::read(path).map_err(|error| unreadable(path, &error))
}

fn unreadable(path: &Path, error: &std::io::Error) -> ConfError {
    ConfError::Unreadable {
        path: path.to_owned(),
        cause: error.to_string(),
    }
}

fn parse(path: &Path, content: &[u8]) -> Result<Ini, ConfError> {
    Ini::parse(content).map_err(|IniError(what)| ConfError::Malformed {
        path: path.to_owned(),
        what,
    })
}

fn read_folder(folder: &Path) -> Result<Ini, ConfError> {
    let entries = std::fs::read_dir(folder).map_err(|error| unreadable(folder, &error))?;
    let mut files: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|file| {
        let name = file
            .file_name()
            .map(|name| name.to_string_lossy())
            .unwrap_or_default();
        name.ends_with(".conf") && !name.starts_with('.')
    });
    files.sort();
    let mut ini = Ini::default();
    for file in files {
        ini.merge(parse(&file, &read(&file)?)?);
    }
    Ok(ini)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn swift_conf(text: &[u8]) -> Result<SwiftConf, IniError> {
        SwiftConf::from_ini(&Ini::parse(text)?)
    }

    fn container_conf(text: &str) -> Result<ContainerServerConf, IniError> {
        ContainerServerConf::from_ini(&Ini::parse(text.as_bytes())?)
    }

    #[test]
    fn the_hash_path_is_bytes_and_policies_come_by_index() {
        let conf = swift_conf(
            b"[swift-hash]\nswift_hash_path_suffix = s\xe9%%\n[storage-policy:2]\nname = silver\n[storage-policy:0]\nname = gold\ndefault = yes\n",
        )
        .unwrap();
        assert_eq!(conf.hash_path.suffix, b"s\xe9%");
        assert_eq!(conf.hash_path.prefix, b"");
        let names: Vec<_> = conf
            .policies
            .iter()
            .map(|policy| (policy.index, policy.name.as_str()))
            .collect();
        assert_eq!(names, [(0, "gold"), (2, "silver")]);
        assert_eq!(conf.policies[0].ring_file(), "object.ring.gz");
        assert_eq!(conf.policies[1].ring_file(), "object-2.ring.gz");
    }

    #[test]
    fn without_policies_there_is_policy_0() {
        let conf = swift_conf(b"[swift-hash]\nswift_hash_path_prefix = p\n").unwrap();
        assert_eq!(conf.policies.len(), 1);
        assert_eq!(conf.policies[0].index, 0);
    }

    #[test]
    fn a_hash_path_is_required() {
        let error = swift_conf(b"[swift-hash]\n").unwrap_err();
        assert!(error.0.contains("[swift-hash]"), "{error:?}");
        assert!(swift_conf(b"[swift-hash]\nswift_hash_path_suffix = x\n[storage-policy:a]\n").is_err());
    }

    #[test]
    fn the_container_servers_options_have_swifts_defaults() {
        let conf = container_conf("").unwrap();
        let expected = ContainerServerConf {
            bind_ip: "0.0.0.0".to_owned(),
            bind_port: 6201,
            devices: "/srv/node".into(),
            mount_check: true,
            reclaim_age: Duration::from_secs(604_800),
        };
        assert_eq!(conf, expected);
    }

    #[test]
    fn the_container_servers_options_are_read_where_they_stand() {
        let conf = container_conf(
            "[DEFAULT]\nbind_ip = 10.0.0.1\nbind_port = 6211\nmount_check = False\n[app:container-server]\nset devices = /disks\n[container-replicator]\nreclaim_age = 86400\n",
        )
        .unwrap();
        assert_eq!((conf.bind_ip.as_str(), conf.bind_port), ("10.0.0.1", 6211));
        assert!(!conf.mount_check);
        assert_eq!(conf.devices, Path::new("/disks"));
        assert_eq!(conf.reclaim_age, Duration::from_secs(86_400));
    }

    #[test]
    fn a_value_that_is_no_number_is_named_with_its_section() {
        let error = container_conf("[DEFAULT]\nbind_port = many\n").unwrap_err();
        assert_eq!(
            error.0,
            "`bind_port` in [DEFAULT] is `many`, it must be a port, 1 to 65535"
        );
        assert!(container_conf("[DEFAULT]\nreclaim_age = -1\n").is_err());
    }

    #[test]
    fn a_folder_of_files_is_read_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let error = ContainerServerConf::load(dir.path()).unwrap_err();
        assert!(error.to_string().contains("--swift-dir"), "{error}");
        let folder = dir.path().join("container-server.conf.d");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("10.conf"), "[DEFAULT]\nbind_port = 1\n").unwrap();
        std::fs::write(folder.join("20.conf"), "[DEFAULT]\nbind_port = 2\n").unwrap();
        std::fs::write(folder.join("README"), "nonsense").unwrap();
        assert_eq!(ContainerServerConf::load(dir.path()).unwrap().bind_port, 2);
    }
}
