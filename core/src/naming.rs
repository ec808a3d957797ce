//! Names: from an object of Swift to its keys at the remote and back, and the hashes that Swift and the agents use.
//!
//! The keys are byte for byte those of 1space, whose users move over without copying anything again.

use md5::Md5;
use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::reason::HoldReason;

/// The longest key that S3 can hold, in bytes of UTF-8.
pub const MAX_KEY_BYTES: usize = 1024;

/// Where manifests of large objects are.
const MANIFESTS: &str = ".manifests/";

/// Where onespace keeps what it knows of containers, at the root of a bucket.
const CATALOGUE: &str = ".onespace/";

/// The keys of one container at the remote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// What every object key starts with, ending in `/` unless it is empty.
    objects: String,
    /// What every manifest key starts with.
    manifests: String,
    /// Whether object keys and onespace's own keys could meet.
    custom: bool,
}

impl Namespace {
    /// The keys of this container. `prefix` is the mapping's, without slashes at its ends; `None` is the hashed
    /// namespace `<h>/<account>/<container>/`, the empty one leaves object names as they are. For an account-wide
    /// mapping `container` is each container's own name.
    #[must_use]
    pub fn new(account: &str, container: &str, prefix: Option<&str>) -> Self {
        let (objects, manifests) = match prefix {
            None => {
                let path = format!("{account}/{container}");
                let digest = Md5::digest(&path);
                // md5 as a number modulo 16^6, that is its last three bytes, without leading zeros.
                let hash = u32::from_be_bytes([0, digest[13], digest[14], digest[15]]);
                (
                    format!("{hash:x}/{path}/"),
                    format!("{hash:x}/{MANIFESTS}{path}/"),
                )
            }
            Some("") => (String::new(), MANIFESTS.to_owned()),
            Some(prefix) => (format!("{prefix}/"), format!("{prefix}/{MANIFESTS}")),
        };
        Self {
            objects,
            manifests,
            custom: prefix.is_some(),
        }
    }

    /// The key of an object.
    ///
    /// # Errors
    /// [`HoldReason::ReservedName`] where the key would be one of onespace's own, and
    /// [`HoldReason::NameNotRepresentable`] where no S3 can hold it.
    pub fn object_key(&self, object: &str) -> Result<String, HoldReason> {
        if self.is_reserved(object) {
            return Err(HoldReason::ReservedName);
        }
        let key = format!("{}{object}", self.objects);
        if object.is_empty() || key.len() > MAX_KEY_BYTES {
            return Err(HoldReason::NameNotRepresentable);
        }
        Ok(key)
    }

    /// The key of the manifest of a large object.
    #[must_use]
    pub fn manifest_key(&self, object: &str) -> String {
        format!(
            "{}{}.swift_slo_manifest",
            self.manifests,
            hex::encode(Sha256::digest(object))
        )
    }

    /// Where 1space put the manifest, if that is another key: under a custom prefix it hashed the name without its
    /// leading slashes.
    #[must_use]
    pub fn legacy_manifest_key(&self, object: &str) -> Option<String> {
        let stripped = object.trim_start_matches('/');
        (self.custom && stripped.len() < object.len()).then(|| self.manifest_key(stripped))
    }

    /// What to list to find every object of the container.
    #[must_use]
    pub fn listing_prefix(&self) -> String {
        self.objects.clone()
    }

    /// The object that has this key. `None` for a manifest, for what onespace keeps, and for a key that is not of
    /// this container.
    #[must_use]
    pub fn object_name<'a>(&self, key: &'a str) -> Option<&'a str> {
        key.strip_prefix(&self.objects)
            .filter(|name| !name.is_empty() && !self.is_reserved(name))
    }

    /// The key under which a container's metadata are kept.
    #[must_use]
    pub fn catalogue_key(account: &str, container: &str) -> String {
        format!("{CATALOGUE}containers/{account}/{container}.json")
    }

    fn is_reserved(&self, object: &str) -> bool {
        self.custom && (object.starts_with(MANIFESTS) || object.starts_with(CATALOGUE))
    }
}

/// What a mark names as the origin of a copy: sha256 of `account/container/object`, hex.
#[must_use]
pub fn source_hash(account: &str, container: &str, object: &str) -> String {
    hex::encode(Sha256::digest(format!("{account}/{container}/{object}")))
}

/// Which replica's agent is the primary for rows of this name: the last 24 bits of its sha1, modulo the number of
/// replicas.
#[must_use]
pub fn primary_index(name: &str, replicas: u32) -> u32 {
    let digest = Sha1::digest(name);
    let number = u32::from_be_bytes([0, digest[17], digest[18], digest[19]]);
    number.checked_rem(replicas).unwrap_or(0)
}

/// The prefix and suffix of swift.conf (`swift_hash_path_prefix`, `swift_hash_path_suffix`) that make a cluster's
/// paths its own. Bytes: Swift reads that file as Latin-1.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct HashPath {
    /// `swift_hash_path_prefix`.
    pub prefix: Vec<u8>,
    /// `swift_hash_path_suffix`.
    pub suffix: Vec<u8>,
}

impl HashPath {
    /// The hash of an account, container or object path: where Swift keeps it, and which partition it is in. An
    /// object without a container is not a path: it is left out.
    #[must_use]
    pub fn hash(&self, account: &str, container: Option<&str>, object: Option<&str>) -> [u8; 16] {
        let mut md5 = Md5::new();
        md5.update(&self.prefix);
        for part in [Some(account), container, container.and(object)]
            .into_iter()
            .flatten()
        {
            md5.update(b"/");
            md5.update(part);
        }
        md5.update(&self.suffix);
        md5.finalize().into()
    }
}

/// The two are as good as secrets to Swift: whoever knows them can choose names that collide on one disk.
impl std::fmt::Debug for HashPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HashPath")
    }
}

/// The partition of a hash in a ring of 2^`part_power` partitions.
#[must_use]
pub fn partition(hash: &[u8; 16], part_power: u8) -> u32 {
    let first = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
    first
        .checked_shr(32_u32.saturating_sub(u32::from(part_power)))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hashed() -> Namespace {
        Namespace::new("AUTH_test", "plain", None)
    }

    #[test]
    fn object_keys_are_those_of_1space() {
        let key = |account, container, prefix, object| {
            Namespace::new(account, container, prefix)
                .object_key(object)
                .unwrap()
        };
        assert_eq!(
            key("AUTH_test", "plain", None, "a/b"),
            "19dae2/AUTH_test/plain/a/b"
        );
        assert_eq!(key("AUTH_test2", "one", None, "a"), "76cbb/AUTH_test2/one/a");
        assert_eq!(
            key("AUTH_test", "plain", None, "//double//slash"),
            "19dae2/AUTH_test/plain///double//slash"
        );
        assert_eq!(
            key("AUTH_test", "plain", Some("pre/fix"), "//double//slash"),
            "pre/fix///double//slash"
        );
        assert_eq!(key("AUTH_test", "plain", Some(""), "a/b"), "a/b");
    }

    #[test]
    fn manifest_keys_are_those_of_1space() {
        let sha = hex::encode(Sha256::digest("//double//slash"));
        let stripped = hex::encode(Sha256::digest("double//slash"));
        let hashed = hashed();
        assert_eq!(
            hashed.manifest_key("//double//slash"),
            format!("19dae2/.manifests/AUTH_test/plain/{sha}.swift_slo_manifest")
        );
        assert_eq!(hashed.legacy_manifest_key("//double//slash"), None);
        for (prefix, start) in [("pre/fix", "pre/fix/.manifests/"), ("", ".manifests/")] {
            let custom = Namespace::new("AUTH_test", "plain", Some(prefix));
            assert_eq!(
                custom.manifest_key("//double//slash"),
                format!("{start}{sha}.swift_slo_manifest")
            );
            assert_eq!(
                custom.legacy_manifest_key("//double//slash").unwrap(),
                format!("{start}{stripped}.swift_slo_manifest")
            );
            assert_eq!(custom.legacy_manifest_key("double//slash"), None);
        }
    }

    #[test]
    fn a_name_that_would_land_on_our_own_keys_is_held() {
        for prefix in ["", "pre/fix"] {
            let custom = Namespace::new("AUTH_test", "plain", Some(prefix));
            for name in [".manifests/x", ".onespace/x", ".manifests/"] {
                assert_eq!(custom.object_key(name), Err(HoldReason::ReservedName), "{name}");
            }
            for name in [".manifests", ".onespace", "/.manifests/x", "a/.onespace/x"] {
                assert!(custom.object_key(name).is_ok(), "{name}");
            }
        }
        assert!(hashed().object_key(".manifests/x").is_ok());
    }

    #[test]
    fn a_key_longer_than_s3_can_hold_is_held_unsent() {
        let namespace = hashed();
        let room = MAX_KEY_BYTES - namespace.listing_prefix().len();
        assert!(namespace.object_key(&"x".repeat(room)).is_ok());
        for name in ["x".repeat(room + 1), "é".repeat(room / 2 + 1), String::new()] {
            assert_eq!(namespace.object_key(&name), Err(HoldReason::NameNotRepresentable));
        }
    }

    #[test]
    fn a_listing_of_the_namespace_shows_objects_only() {
        let root = Namespace::new("AUTH_test", "plain", Some(""));
        assert_eq!(root.listing_prefix(), "");
        assert_eq!(root.object_name("a/b"), Some("a/b"));
        assert_eq!(root.object_name(&root.manifest_key("a")), None);
        assert_eq!(
            root.object_name(&Namespace::catalogue_key("AUTH_test", "plain")),
            None
        );
        let hashed = hashed();
        assert_eq!(hashed.listing_prefix(), "19dae2/AUTH_test/plain/");
        assert_eq!(hashed.object_name(&hashed.manifest_key("a")), None);
        assert_eq!(hashed.object_name("19dae2/AUTH_test/plainer/a"), None);
        assert_eq!(hashed.object_name("19dae2/AUTH_test/plain/"), None);
        assert_eq!(
            Namespace::catalogue_key("AUTH_test", "plain"),
            ".onespace/containers/AUTH_test/plain.json"
        );
    }

    #[test]
    fn swifts_paths_are_found_again() {
        // Computed by swift.common.utils.hash_path with these two.
        let path = HashPath {
            prefix: b"changeme".to_vec(),
            suffix: vec![b'x', 0xe9],
        };
        let hash = path.hash("AUTH_test", Some("plain"), None);
        assert_eq!(hex::encode(hash), "092586e23f9eba7fbe4ad8f3d4a15a06");
        assert_eq!(
            hex::encode(path.hash("AUTH_test", None, None)),
            "29f0aabdf96f37b22f316bdb4a060661"
        );
        assert_eq!(
            hex::encode(path.hash("AUTH_test", Some("plain"), Some("ö/x"))),
            "db1e96ee492bc2136073649ce5514b70"
        );
        assert_eq!(partition(&hash, 8), u32::from(hash[0]));
        assert_eq!(partition(&hash, 0), 0);
        assert_eq!(partition(&[0xff; 16], 32), u32::MAX);
        assert_eq!(partition(&[0xff; 16], 255), u32::MAX);
    }

    #[test]
    fn a_row_has_one_primary_among_the_replicas() {
        // sha1("x") ends in 5c2072.
        assert_eq!(primary_index("x", 3), 1);
        assert_eq!(primary_index("x", 1), 0);
        assert_eq!(primary_index("x", 0), 0);
    }

    proptest! {
        #[test]
        fn a_name_survives_its_key(
            prefix in proptest::option::of("[a-z]{0,3}(/[a-z.]{1,3})?"), name in r"(\.manifests/|\.onespace/|/)?\PC{0,30}"
        ) {
            let namespace = Namespace::new("AUTH_é", "ö", prefix.as_deref());
            match namespace.object_key(&name) {
                Ok(key) => {
                    prop_assert_eq!(namespace.object_name(&key), Some(name.as_str()));
                    prop_assert!(key.starts_with(&namespace.listing_prefix()));
                    prop_assert_ne!(key, namespace.manifest_key(&name));
                }
                Err(HoldReason::ReservedName) => prop_assert!(prefix.is_some()),
                Err(_) => prop_assert!(name.is_empty()),
            }
            let manifest = namespace.manifest_key(&name);
            prop_assert_eq!(namespace.object_name(&manifest), None);
        }
    }
}
