//! `onespace status` against a running agent.

use std::process::Command;

use anyhow::Result;
use onespace_core::report::Report;
use onespace_e2e::lab::Lab;
use onespace_e2e::programs::program;
use onespace_e2e::swift::NO_HEADERS;

#[tokio::test]
async fn the_status_command_shows_what_the_agent_reports() -> Result<()> {
    let lab = Lab::start().await?;
    lab.container("photos").await?;
    lab.user.put("photos", "a.jpg", NO_HEADERS, "one").await?;
    lab.policies
        .apply("photos.yaml", &lab.policy("photos", "photos", ""))?;
    let mut agent = lab.agent().await?;
    agent
        .until_policy("the copy", "photos", |report| {
            report.totals.objects == 1 && report.pending.rows == 0
        })
        .await?;

    let status = |more: &[&str]| -> Result<(bool, String, String)> {
        let output = Command::new(program("onespace")?)
            .arg("status")
            .args(more)
            .output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((
            output.status.success(),
            text(&output.stdout),
            text(&output.stderr),
        ))
    };
    let url = agent.status_url();
    let (ok, table, _) = status(&["--agent", &url])?;
    assert!(
        ok && table.contains("swift/photos") && table.contains("Running"),
        "{table}"
    );
    let (ok, json, _) = status(&["--agent", &url, "--json"])?;
    let report: Report = serde_json::from_str(&json)?;
    assert!(ok);
    assert_eq!(report.mappings[0].totals.bytes, 3);

    agent.stop().await?;
    let (ok, _, error) = status(&["--agent", &url])?;
    assert!(!ok && error.contains("is the agent running"), "{error}");
    Ok(())
}
