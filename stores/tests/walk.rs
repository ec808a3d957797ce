//! Finding the databases of accounts and shards by walking a device.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;

use onespace_stores::swift::locate::{Catalogue, Located, Node};
use rusqlite::Connection;

const DEVICE: &str = "sd1";

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fixtures")
        .join(name)
}

/// A node with one device of a ring of five, three replicas.
struct Lab {
    dir: tempfile::TempDir,
    node: Node,
}

impl Lab {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let swift = dir.path().join("swift");
        std::fs::create_dir_all(dir.path().join("node").join(DEVICE)).unwrap();
        std::fs::create_dir(&swift).unwrap();
        std::fs::copy(fixture("rings/v1.ring.gz"), swift.join("container.ring.gz")).unwrap();
        std::fs::write(
            swift.join("swift.conf"),
            "[swift-hash]\nswift_hash_path_suffix = x\n",
        )
        .unwrap();
        std::fs::write(
            swift.join("container-server.conf"),
            "[DEFAULT]\nmount_check = false\n",
        )
        .unwrap();
        let node = Node::load(
            &swift,
            &dir.path().join("node"),
            &["192.0.2.1:6200".parse().unwrap()],
        )
        .unwrap();
        Self { dir, node }
    }

    /// A name that begins like this, of a container that the ring puts on this node, or not.
    fn name(&self, account: &str, begin: &str, ours: bool) -> String {
        (0..)
            .map(|number| format!("{begin}{number}"))
            .find(|name| self.node.places(account, name).local.is_empty() != ours)
            .unwrap()
    }

    /// A container's database on this node, whether the ring puts it here or not.
    fn create(&self, account: &str, container: &str, metadata: &str) -> PathBuf {
        let folder = match self.node.places(account, container).local.first() {
            Some(place) => place.folder.clone(),
            None => {
                let hash = "0123456789abcdef0123456789abcdef";
                self.dir
                    .path()
                    .join(format!("node/{DEVICE}/containers/7/def/{hash}"))
            }
        };
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join(format!("{}.db", folder.file_name().unwrap().to_str().unwrap()));
        std::fs::copy(fixture("databases/forms.db"), &path).unwrap();
        self.rename(&path, account, container, metadata);
        path
    }

    fn rename(&self, path: &Path, account: &str, container: &str, metadata: &str) {
        Connection::open(path)
            .unwrap()
            .execute(
                "UPDATE container_info SET account = ?, container = ?, metadata = ?",
                [account, container, metadata],
            )
            .unwrap();
    }

    fn walk(&self, catalogue: &mut Catalogue, accounts: &[&str]) -> Located {
        let wanted: BTreeSet<String> = accounts.iter().map(|&account| account.to_owned()).collect();
        self.node.walk(DEVICE, &wanted, catalogue, &AtomicU64::default())
    }
}

fn header(name: &str, value: &str) -> String {
    format!(r#"{{"X-Container-Sysmeta-{name}": ["{value}", "1795331622.80724"]}}"#)
}

fn shown(located: &Located) -> Vec<(&str, &str, bool)> {
    let mut shown: Vec<_> = located
        .replicas
        .iter()
        .map(|replica| {
            (
                replica.account.as_str(),
                replica.container.as_str(),
                replica.shard.is_some(),
            )
        })
        .collect();
    shown.sort_unstable();
    shown
}

#[test]
fn shards_belong_to_the_container_that_their_header_names_whatever_their_own_name_says() {
    let lab = Lab::new();
    let mut catalogue = Catalogue::default();
    let shards = ".shards_AUTH_a";
    let new = lab.name(shards, "big-1-", true);
    lab.create(
        shards,
        &new,
        &header("Shard-Quoted-Root", "AUTH_a/b%C3%BCro%2Fno"),
    );
    let old = lab.name(shards, "big-2-", true);
    lab.create(shards, &old, &header("Shard-Root", "AUTH_a/100%25"));
    let hidden = lab.name(shards, "big-3-", true);
    lab.create(
        shards,
        &hidden,
        &header("Shard-Quoted-Root", "AUTH_a/%00versions%00v"),
    );
    let foreign = lab.name(shards, "big-4-", true);
    lab.create(shards, &foreign, &header("Shard-Quoted-Root", "AUTH_b/big"));
    let unfinished = lab.name(shards, "big-5-", true);
    let path = lab.create(shards, &unfinished, "");
    let other = lab.name(".shards_AUTH_b", "big-", true);
    lab.create(
        ".shards_AUTH_b",
        &other,
        &header("Shard-Quoted-Root", "AUTH_b/big"),
    );

    let located = lab.walk(&mut catalogue, &[shards]);
    assert_eq!(
        shown(&located),
        [("AUTH_a", "100%25", true), ("AUTH_a", "büro/no", true)]
    );
    let replica = located
        .replicas
        .iter()
        .find(|replica| replica.container == "büro/no")
        .unwrap();
    assert_eq!(replica.served_as(), (shards, new.as_str()));
    let place = &lab.node.places(shards, &new).local[0];
    assert!(replica.path.starts_with(&place.folder));
    assert_eq!(replica.replicas, 3);

    // The sharder makes the file first and writes the header then.
    lab.rename(
        &path,
        shards,
        &unfinished,
        &header("Shard-Quoted-Root", "AUTH_a/big"),
    );
    assert!(shown(&lab.walk(&mut catalogue, &[shards])).contains(&("AUTH_a", "big", true)));
}

#[test]
fn a_walk_finds_the_containers_of_an_account_and_no_handoffs_strangers_or_hidden_ones() {
    let lab = Lab::new();
    let mut catalogue = Catalogue::default();
    let (one, two) = (lab.name("AUTH_a", "one", true), lab.name("AUTH_a", "two", true));
    lab.create("AUTH_a", &one, "");
    let handoff = lab.name("AUTH_a", "handoff", false);
    lab.create("AUTH_a", &handoff, "");
    let hidden = lab.name("AUTH_a", "\0versions\0v", true);
    lab.create("AUTH_a", &hidden, "");
    let stranger = lab.name("AUTH_b", "c", true);
    let stranger = lab.create("AUTH_b", &stranger, "");
    assert_eq!(
        shown(&lab.walk(&mut catalogue, &["AUTH_a"])),
        [("AUTH_a", one.as_str(), false)]
    );

    // Those that appear later, and both files of one that is being sharded.
    let path = lab.create("AUTH_a", &two, "");
    let epoch = path.to_string_lossy().replace(".db", "_1795331622.82147.db");
    std::fs::copy(&path, epoch).unwrap();
    let later = lab.walk(&mut catalogue, &["AUTH_a"]);
    assert_eq!(
        shown(&later),
        [
            ("AUTH_a", one.as_str(), false),
            ("AUTH_a", &two, false),
            ("AUTH_a", &two, false)
        ]
    );

    // Nobody's database is opened once and never again, until someone asks for its account.
    std::fs::write(&stranger, "damaged").unwrap();
    assert!(lab.walk(&mut catalogue, &["AUTH_a"]).unreadable.is_empty());
    assert_eq!(catalogue.len(), (4, 1));
    let asked = lab.walk(&mut catalogue, &["AUTH_a", "AUTH_b"]);
    assert_eq!(asked.unreadable.keys().collect::<Vec<_>>(), [&stranger]);
    assert_eq!(shown(&asked).len(), 3, "one that cannot be read hides no other");

    // What went away is forgotten.
    std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
    assert_eq!(shown(&lab.walk(&mut catalogue, &["AUTH_a"])).len(), 1);
    assert_eq!(catalogue.len().0, 3);
}
