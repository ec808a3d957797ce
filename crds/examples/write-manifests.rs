//! Writes the CRD manifests beside the crate: `cargo run -p onespace-crds --example write-manifests`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for crd in [
        onespace_crds::sync_policy_crd()?,
        onespace_crds::account_grant_crd()?,
    ] {
        let name = crd.metadata.name.clone().unwrap_or_default();
        let text = format!(
            "# Generated from crds/src: cargo run -p onespace-crds --example write-manifests\n{}",
            serde_yaml::to_string(&crd)?
        );
        std::fs::write(format!("{}/{name}.yaml", env!("CARGO_MANIFEST_DIR")), text)?;
    }
    Ok(())
}
