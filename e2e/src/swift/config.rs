//! Swift's configuration files, as text.

use std::fmt::Write as _;

use super::{Encryption, Options, Scheme};

/// The ports of what a cluster has once.
#[derive(Clone, Debug)]
pub(super) struct Ports {
    pub memcached: u16,
    pub public: u16,
    pub internal: u16,
}

/// `swift.conf`.
pub(super) fn swift_conf(options: &Options) -> String {
    let mut text = format!(
        "[swift-hash]\nswift_hash_path_prefix = {}\nswift_hash_path_suffix = {}\n",
        options.hash_prefix, options.hash_suffix
    );
    for (index, policy) in options.policies.iter().enumerate() {
        let _ = writeln!(text, "\n[storage-policy:{index}]\nname = {}", policy.name);
        match policy.scheme {
            Scheme::Replicated => text.push_str("policy_type = replication\n"),
            Scheme::ErasureCoded { data, parity } => {
                let _ = write!(
                    text,
                    "policy_type = erasure_coding\nec_type = liberasurecode_rs_vand\n\
                     ec_num_data_fragments = {data}\nec_num_parity_fragments = {parity}\n"
                );
            }
        }
        if index == 0 {
            text.push_str("default = yes\n");
        }
    }
    text
}

/// `account-server.conf`, `container-server.conf`, `object-server.conf` and `object-server-N.conf` of the node in
/// folder `node` of the cluster in `cluster`.
pub(super) fn storage_server(
    options: &Options,
    kind: &str,
    (address, port): (&str, u16),
    cluster: &str,
    node: &str,
) -> String {
    let app = format!("{kind}-server");
    let daemons: &[&str] = match kind {
        "account" => &["replicator", "auditor", "reaper"],
        "container" => &["replicator", "updater", "auditor", "sync", "sharder"],
        _ => &["replicator", "reconstructor", "updater", "auditor", "expirer"],
    };
    let mut text = format!(
        "[DEFAULT]\n\
         swift_dir = {node}/etc\n\
         devices = {node}/devices\n\
         mount_check = false\n\
         bind_ip = {address}\n\
         bind_port = {port}\n\
         workers = 0\n\
         disable_fallocate = true\n\
         fallocate_reserve = 0\n"
    );
    if let Some(age) = options.reclaim_age {
        let _ = writeln!(text, "reclaim_age = {age}");
    }
    let _ = write!(
        text,
        "\n\
         [pipeline:main]\n\
         pipeline = healthcheck {app}\n\
         \n\
         [app:{app}]\n\
         use = egg:swift#{kind}\n\
         allow_versions = true\n\
         \n\
         [filter:healthcheck]\n\
         use = egg:swift#healthcheck\n"
    );
    for daemon in daemons {
        let _ = write!(
            text,
            "\n[{kind}-{daemon}]\nrecon_cache_path = {node}/cache\nrsync_timeout = 10\n"
        );
        match (kind, *daemon) {
            ("container" | "object", "updater") => text.push_str("concurrency = 1\n"),
            // Folders of this machine, by the port that they belong to: no rsync daemon is needed.
            ("account" | "container", "replicator") => {
                let _ = writeln!(text, "rsync_module = {cluster}/rsync/{{replication_port}}");
            }
            // Needs no rsync.
            ("object", "replicator") => text.push_str("sync_method = ssync\n"),
            ("container", "sharder") => {
                let _ = writeln!(
                    text,
                    "internal_client_conf_path = {cluster}/etc/internal-client.conf"
                );
            }
            _ => {}
        }
    }
    text
}

/// What the daemons run for rsync: they name options, one file, and a place on this machine.
pub(super) const RSYNC: &str = "#!/bin/sh
set -e
while [ $# -gt 2 ]; do shift; done
mkdir -p \"$(dirname \"$2\")\"
cp \"$1\" \"$2.part\"
mv \"$2.part\" \"$2\"
";

const FILTERS: &str = "
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:healthcheck]
use = egg:swift#healthcheck
[filter:proxy-logging]
use = egg:swift#proxy_logging
log_msg_template = access {method} {status_int} {path}
[filter:domain_remap]
use = egg:swift#domain_remap
[filter:etag-quoter]
use = egg:swift#etag_quoter
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:container_sync]
use = egg:swift#container_sync
[filter:bulk]
use = egg:swift#bulk
[filter:tempurl]
use = egg:swift#tempurl
[filter:formpost]
use = egg:swift#formpost
[filter:crossdomain]
use = egg:swift#crossdomain
[filter:s3api]
use = egg:swift#s3api
s3_acl = false
[filter:staticweb]
use = egg:swift#staticweb
[filter:copy]
use = egg:swift#copy
[filter:container-quotas]
use = egg:swift#container_quotas
[filter:account-quotas]
use = egg:swift#account_quotas
[filter:slo]
use = egg:swift#slo
rate_limit_after_segment = 1000000
rate_limit_under_size = 0
[filter:dlo]
use = egg:swift#dlo
rate_limit_after_segment = 1000000
[filter:versioned_writes]
use = egg:swift#versioned_writes
allow_versioned_writes = true
allow_object_versioning = true
[filter:symlink]
use = egg:swift#symlink
[filter:tempauth]
use = egg:swift#tempauth
user_admin_admin = admin .admin .reseller_admin
user_test_tester = testing .admin
user_test2_tester2 = testing2 .admin
";

const KEYMASTER: &str = "
[filter:keymaster]
use = egg:swift#keymaster
encryption_root_secret = b25lc3BhY2UgdGVzdHMga2V5bWFzdGVyIHNlY3JldCEhISEhISEhISEh
[filter:encryption]
use = egg:swift#encryption
";

fn proxy_default(port: u16, folder: &str) -> String {
    format!(
        "[DEFAULT]\nswift_dir = {folder}/etc\nbind_ip = 127.0.0.1\nbind_port = {port}\nworkers = 0\nexpose_info = true\n"
    )
}

/// Errors are never counted: a node that comes back is asked again at once.
const PROXY: &str = "
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
allow_account_management = true
error_suppression_limit = 1000000
";

fn proxy_app(ports: &Ports) -> String {
    format!(
        "{PROXY}\n[filter:cache]\nuse = egg:swift#memcache\nmemcache_servers = 127.0.0.1:{}\n",
        ports.memcached
    )
}

/// `proxy-server.conf`: the proxy that users talk to, with every middleware.
pub(super) fn public_proxy(options: &Options, ports: &Ports, folder: &str) -> String {
    let encryption = match options.encryption {
        Encryption::Off => "",
        Encryption::On | Encryption::EndpointCannotDecrypt => "keymaster encryption ",
    };
    format!(
        "{}\n[pipeline:main]\npipeline = catch_errors gatekeeper healthcheck proxy-logging cache domain_remap \
         etag-quoter listing_formats container_sync bulk tempurl formpost crossdomain s3api tempauth staticweb copy \
         container-quotas account-quotas slo dlo versioned_writes symlink {encryption}proxy-logging proxy-server\n{}{FILTERS}{KEYMASTER}",
        proxy_default(ports.public, folder),
        proxy_app(ports),
    )
}

/// `internal-endpoint.conf`: a second proxy, a chain made by hand. Swift puts gatekeeper, copy, dlo and others back
/// into any `[pipeline:main]` that lacks them, and gatekeeper removes the `X-Backend-*` headers; this form it leaves alone.
pub(super) fn internal_endpoint(options: &Options, ports: &Ports, folder: &str) -> String {
    let mut chain = vec![
        ("catch_errors", "catch_errors"),
        ("proxy_logging", "proxy_logging"),
        ("memcache", "memcache"),
        ("symlink", "symlink"),
    ];
    if options.encryption == Encryption::On {
        chain.extend([("keymaster", "keymaster"), ("encryption", "encryption")]);
    }
    let mut text = proxy_default(ports.internal, folder);
    for (at, (name, egg)) in chain.iter().enumerate() {
        let section = if at == 0 { "main" } else { name };
        let next = chain.get(at + 1).map_or("proxy-server", |(name, _)| name);
        let _ = write!(
            text,
            "\n[filter-app:{section}]\nuse = egg:swift#{egg}\nnext = {next}\n"
        );
        match *name {
            "proxy_logging" => text.push_str("log_msg_template = access {method} {status_int} {path}\n"),
            "memcache" => {
                let _ = writeln!(text, "memcache_servers = 127.0.0.1:{}", ports.memcached);
            }
            "keymaster" => {
                text.push_str(
                    "encryption_root_secret = b25lc3BhY2UgdGVzdHMga2V5bWFzdGVyIHNlY3JldCEhISEhISEhISEh\n",
                );
            }
            _ => {}
        }
    }
    text.push_str(PROXY);
    text
}

/// `object-expirer.conf`, `container-reconciler.conf`: a daemon of the whole cluster, with a proxy of its own.
pub(super) fn cluster_daemon(name: &str, ports: &Ports, folder: &str) -> String {
    format!(
        "{}\n[{name}]\nrecon_cache_path = {folder}/cache\ndequeue_from_legacy = true\n",
        internal_client(ports, folder)
    )
}

/// `internal-client.conf`: what the sharder sends requests through.
pub(super) fn internal_client(ports: &Ports, folder: &str) -> String {
    format!(
        "[DEFAULT]\nswift_dir = {folder}/etc\n\n[pipeline:main]\npipeline = catch_errors cache proxy-server\n\
         \n[filter:catch_errors]\nuse = egg:swift#catch_errors\n{}",
        proxy_app(ports)
    )
}
