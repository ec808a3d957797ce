//! What makes a mapping the same mapping, and what makes it start over.

use onespace_crds::Source;
use sha2::{Digest, Sha256};

use super::Endpoint;
use crate::mapping::{Mapping, MappingId};

/// The id: 32 hex digits over source and target. Names and uids of resources do not count, so that renaming a policy
/// or restoring a cluster copies nothing again; nor do credentials, region and the ways of talking to the remote.
pub(super) fn mapping_id(source: &Source, target: &onespace_crds::Target, endpoint: &Endpoint) -> MappingId {
    let prefix = target.prefix.as_deref().map(|prefix| prefix.trim_matches('/'));
    let swift_account = target.swift.as_ref().and_then(|swift| swift.account.as_deref());
    let identity = serde_json::json!([
        "onespace mapping",
        source.account,
        source.container,
        target.protocol,
        endpoint.to_string(),
        target.bucket,
        prefix,
        swift_account,
    ]);
    MappingId(digest(&identity))
}

/// The digest of what makes a mapping start over when it changes: what is remote then no longer follows from how far
/// the mapping was.
pub(super) fn starts_over(mapping: &Mapping) -> String {
    digest(&serde_json::json!([
        mapping.id,
        mapping.exclude,
        mapping.select,
        mapping.copy_after,
        mapping.retain_local_segments,
        mapping.propagate_delete,
    ]))
}

fn digest(value: &serde_json::Value) -> String {
    hex::encode(&Sha256::digest(value.to_string())[..16])
}
