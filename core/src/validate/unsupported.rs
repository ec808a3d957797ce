//! Options that exist but are not done yet. They are refused, each by name: an option that is accepted and ignored
//! would be a promise that is not kept.

use onespace_crds::{Mode, Protocol, Shunt, SyncPolicySpec, Target};

use super::Finding;
use crate::reason::PolicyFault;

/// One finding for each option that is set and not supported.
pub(super) fn findings(spec: &SyncPolicySpec) -> Vec<Finding> {
    let SyncPolicySpec {
        mode,
        target,
        propagate_expiration,
        expiration_offset,
        remote_delete_after,
        segments_delete_after_addition,
        container_metadata,
        container_acl,
        convert_dlo,
        shunt,
        migrate,
        objective: _,
        limits: _,
        suspend: _,
        source: _,
        copy_after: _,
        retain_local_segments: _,
        propagate_delete: _,
        delete_budget: _,
        exclude: _,
        select: _,
        min_segment_size: _,
    } = spec;
    let Target {
        protocol,
        credentials,
        swift,
        endpoint: _,
        region: _,
        bucket: _,
        prefix: _,
        path_style: _,
        request_checksums: _,
        ca_bundle: _,
        encryption: _,
        storage_class: _,
        http_proxy: _,
    } = target;

    let yes = |option: &Option<bool>| *option == Some(true);
    let uses_shunt = |shunt: &Shunt| {
        let Shunt {
            merge,
            restore,
            on_remote_unavailable,
        } = shunt;
        yes(merge) || yes(restore) || on_remote_unavailable.is_some()
    };
    let cases = [
        (
            "mode",
            *mode != Mode::Sync,
            "only mode Sync is supported so far: set mode: Sync, or keep this policy back",
        ),
        (
            "target.protocol",
            *protocol != Protocol::S3,
            "only protocol S3 is supported so far: keep this policy back",
        ),
        (
            "target.swift",
            swift.is_some() && *protocol == Protocol::S3,
            "Swift remotes are not supported yet: remove it",
        ),
        (
            "target.credentials.ambient",
            credentials.ambient.is_some(),
            "ambient credentials are not supported yet: name a Secret in target.credentials.secretRef",
        ),
        (
            "propagateExpiration",
            yes(propagate_expiration),
            "expiry is not supported yet: remove it",
        ),
        (
            "expirationOffset",
            expiration_offset.is_some(),
            "expiry is not supported yet: remove it",
        ),
        (
            "remoteDeleteAfter",
            remote_delete_after.is_some(),
            "expiry is not supported yet: remove it",
        ),
        (
            "segmentsDeleteAfterAddition",
            segments_delete_after_addition.is_some(),
            "expiry is not supported yet: remove it",
        ),
        (
            "containerMetadata",
            yes(container_metadata),
            "metadata of containers are not supported yet: remove it",
        ),
        (
            "containerAcl",
            yes(container_acl),
            "ACLs of containers are not supported yet: remove it",
        ),
        (
            "convertDlo",
            yes(convert_dlo),
            "it is for Swift remotes, which are not supported yet: remove it",
        ),
        (
            "shunt",
            shunt.as_ref().is_some_and(uses_shunt),
            "the shunt is not supported yet: remove it",
        ),
        (
            "migrate",
            migrate.is_some(),
            "mode Migrate is not supported yet: remove it",
        ),
    ];
    cases
        .into_iter()
        .filter(|(_, set, _)| *set)
        .map(|(field, _, message)| {
            Finding::new(format!("spec.{field}"), PolicyFault::NotYetSupported, message)
        })
        .collect()
}
