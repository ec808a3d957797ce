//! Swift's configuration files, as text.

use std::fmt::Write as _;

use super::{Encryption, Options};

/// The ports of one cluster.
#[derive(Clone, Debug)]
pub(super) struct Ports {
    pub memcached: u16,
    pub account: u16,
    pub container: u16,
    pub objects: Vec<u16>,
    pub public: u16,
    pub internal: u16,
}

/// `swift.conf`.
pub(super) fn swift_conf(options: &Options) -> String {
    let mut text = format!(
        "[swift-hash]\nswift_hash_path_prefix = {}\nswift_hash_path_suffix = {}\n",
        options.hash_prefix, options.hash_suffix
    );
    for (index, name) in options.policies.iter().enumerate() {
        let _ = write!(
            text,
            "\n[storage-policy:{index}]\nname = {name}\npolicy_type = replication\n"
        );
        if index == 0 {
            text.push_str("default = yes\n");
        }
    }
    text
}

/// `account-server.conf`, `container-server.conf`, `object-server.conf` and `object-server-N.conf`.
pub(super) fn storage_server(kind: &str, port: u16, folder: &str) -> String {
    let app = format!("{kind}-server");
    let daemons: &[&str] = match kind {
        "account" => &["replicator", "auditor", "reaper"],
        "container" => &["replicator", "updater", "auditor", "sync", "sharder"],
        _ => &["replicator", "reconstructor", "updater", "auditor", "expirer"],
    };
    let mut text = format!(
        "[DEFAULT]\n\
         swift_dir = {folder}/etc\n\
         devices = {folder}/devices\n\
         mount_check = false\n\
         bind_ip = 127.0.0.1\n\
         bind_port = {port}\n\
         workers = 0\n\
         disable_fallocate = true\n\
         fallocate_reserve = 0\n\
         \n\
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
            "\n[{kind}-{daemon}]\nrecon_cache_path = {folder}/cache\nrsync_timeout = 10\n"
        );
        if (kind, *daemon) == ("container", "updater") || (kind, *daemon) == ("object", "updater") {
            text.push_str("concurrency = 1\n");
        }
    }
    text
}

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

fn proxy_app(ports: &Ports) -> String {
    format!(
        "\n[app:proxy-server]\nuse = egg:swift#proxy\naccount_autocreate = true\nallow_account_management = true\n\
         \n[filter:cache]\nuse = egg:swift#memcache\nmemcache_servers = 127.0.0.1:{}\n",
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
    text.push_str("\n[app:proxy-server]\nuse = egg:swift#proxy\naccount_autocreate = true\nallow_account_management = true\n");
    text
}

/// `object-expirer.conf`.
pub(super) fn expirer(ports: &Ports, folder: &str) -> String {
    format!(
        "[DEFAULT]\nswift_dir = {folder}/etc\n\n[object-expirer]\nrecon_cache_path = {folder}/cache\n\
         dequeue_from_legacy = true\n\n[pipeline:main]\npipeline = catch_errors cache proxy-server\n\
         [filter:catch_errors]\nuse = egg:swift#catch_errors\n{}",
        proxy_app(ports)
    )
}
