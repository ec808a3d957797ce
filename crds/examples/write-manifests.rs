//! Writes the CRD manifests beside the crate: `cargo run -p onespace-crds --example write-manifests`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let crd = onespace_crds::sync_policy_crd()?;
    let text = format!(
        "# Generated from crds/src: cargo run -p onespace-crds --example write-manifests\n{}",
        serde_yaml::to_string(&crd)?
    );
    std::fs::write(
        concat!(env!("CARGO_MANIFEST_DIR"), "/syncpolicies.onespace.dev.yaml"),
        text,
    )?;
    Ok(())
}
