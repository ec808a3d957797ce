//! `onespace status` and `onespace retry` against a running agent.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use onespace_core::report::Report;
use onespace_e2e::lab::Lab;
use onespace_e2e::programs::program;
use onespace_e2e::s3::embedded::{Fault, Rule};
use onespace_e2e::swift::NO_HEADERS;
use onespace_stores::mutual_tls::{AGENT_NAME, FILES};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

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

/// What an agent with `--status-tls` and those who ask it have: certificates of one authority.
fn certificates(folder: &Path) -> Result<[PathBuf; 3]> {
    let authority = || -> Result<(String, Issuer<'static, KeyPair>)> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.pem();
        Ok((certificate, Issuer::new(params, key)))
    };
    let write = |name: &str, trusted: &str, issuer: &Issuer<'static, KeyPair>, purpose| -> Result<PathBuf> {
        let folder = folder.join(name);
        std::fs::create_dir(&folder)?;
        let mut params = CertificateParams::new(vec![AGENT_NAME.to_owned()])?;
        params.extended_key_usages = vec![purpose];
        let key = KeyPair::generate()?;
        let own = params.signed_by(&key, issuer)?.pem();
        for (file, text) in FILES.iter().zip([trusted, &own, &key.serialize_pem()]) {
            std::fs::write(folder.join(file), text)?;
        }
        Ok(folder)
    };
    let (trusted, ours) = authority()?;
    let (_, others) = authority()?;
    Ok([
        write("agent", &trusted, &ours, ExtendedKeyUsagePurpose::ServerAuth)?,
        write("person", &trusted, &ours, ExtendedKeyUsagePurpose::ClientAuth)?,
        write("stranger", &trusted, &others, ExtendedKeyUsagePurpose::ClientAuth)?,
    ])
}

#[tokio::test]
async fn at_an_agent_with_mutual_tls_a_person_with_a_certificate_sees_and_has_held_rows_retried() -> Result<()>
{
    let mut lab = Lab::start().await?;
    let folder = tempfile::tempdir()?;
    let [agents, person, stranger] = certificates(folder.path())?;
    lab.settings.status_tls = Some(agents);
    lab.container("photos").await?;
    lab.user.put("photos", "poison", NO_HEADERS, "poison").await?;
    lab.user.put("photos", "beside", NO_HEADERS, "beside").await?;
    // Once each: so that one object alone can be seen to be tried.
    for key_contains in ["poison", "beside"] {
        lab.s3.faults().inject(Rule {
            operation: Some("PutObject"),
            key_contains: key_contains.into(),
            skip: 0,
            times: 1,
            fault: Fault::answer(400, "InvalidArgument"),
        });
    }
    lab.policies
        .apply("photos.yaml", &lab.policy("photos", "photos", ""))?;
    let mut agent = lab.agent().await?;
    let url = format!("https://127.0.0.1:{}", agent.status_port());
    let onespace = |words: &[&str], tls: Option<&Path>| -> Result<(Option<i32>, String, String)> {
        let mut command = Command::new(program("onespace")?);
        command.args(words).args(["--agent", &url]);
        command.args(tls.iter().flat_map(|folder| [Path::new("--tls"), folder]));
        let output = command.output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((output.status.code(), text(&output.stdout), text(&output.stderr)))
    };
    let held = agent
        .until("both rows held", async |_| {
            let (code, json, _) = onespace(&["status", "--json"], Some(&person))?;
            let report: Option<Report> = serde_json::from_str(&json).ok().filter(|_| code == Some(0));
            let mapping = report.and_then(|report| report.mappings.into_iter().next());
            Ok(mapping.filter(|mapping| mapping.held.rows == 2))
        })
        .await?;

    let (code, _, error) = onespace(&["status"], Some(&stranger))?;
    assert!(code == Some(1) && error.contains("certificates"), "{error}");
    let (code, _, error) = onespace(&["status"], None)?;
    assert!(code == Some(2) && error.contains("--tls"), "{error}");
    let (code, _, error) = onespace(&["retry", "swift/films"], Some(&person))?;
    assert!(
        code == Some(1) && error.contains("no mapping of swift/films"),
        "{error}"
    );
    assert!(lab.remote().is_empty());

    let (code, said, error) = onespace(&["retry", "swift/photos", "photos/poison"], Some(&person))?;
    assert!(code == Some(0) && said.contains("tried again"), "{said}{error}");
    agent
        .until("the one that was named", async |_| Ok(lab.at("photos/poison")))
        .await?;
    assert!(lab.at("photos/beside").is_none(), "another was tried, too");
    let (code, _, error) = onespace(&["retry", &held.id], Some(&person))?;
    assert_eq!(code, Some(0), "{error}");
    agent.until("all", async |_| Ok(lab.at("photos/beside"))).await?;
    Ok(())
}
