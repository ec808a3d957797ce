//! Records the fixtures of this workspace anew: `make fixtures`.

use onespace_e2e::fixtures;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    fixtures::record(&fixtures::folder()).await
}
