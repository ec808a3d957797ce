//! Names: which key an object has at the remote, and which names are held because no key can stand for them.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use onespace_e2e::agent::Agent;
use onespace_e2e::expect::{hashed, is_copy};
use onespace_e2e::lab::Lab;
use onespace_e2e::swift::NO_HEADERS;

/// Every one is another object, and none of them may become another's key.
const NAMES: &[&str] = &[
    "plain",
    "a/b",
    "a//b",
    "a%2Fb",
    "//double//slash",
    "/leading",
    "leading",
    "trailing/",
    "trailing",
    "100% + one? #;=:@~'\"<>&,$!*()[]{}|\\^`",
    "two words",
    "two+words",
    "two%20words",
    "tab\tand\nline",
    "日本/é/\u{1F600}",
    "e\u{301}",
    "\u{e9}",
    "./a/../b",
    ".",
    "a/.manifests/x",
    "empty",
];

/// Names that would meet onespace's own keys under a prefix of the policy's own.
const RESERVED: &[&str] = &[
    ".manifests/x",
    ".onespace/x",
    ".manifests/0000000000000000000000000000000000000000000000000000000000000000.swift_slo_manifest",
];

/// Says which object it is.
fn body(name: &str) -> String {
    if name == "empty" {
        String::new()
    } else {
        format!("this is {name}")
    }
}

async fn settled(agent: &mut Agent, policy: &str, held: u64) -> Result<BTreeSet<(String, String)>> {
    let report = agent
        .until_policy("every name is copied or held", policy, |report| {
            report.initial_pass_complete && report.pending.rows == 0 && report.held.rows == held
        })
        .await?;
    Ok(report
        .held
        .latest
        .into_iter()
        .map(|row| (row.object, row.reason))
        .collect())
}

#[tokio::test]
async fn every_name_has_the_key_that_1space_gave_it_or_is_held_with_its_reason() -> Result<()> {
    let lab = Lab::start().await?;
    lab.container("plain").await?;
    lab.s3.create_bucket("root");
    let longest = "n".repeat(1024);
    let names: Vec<&str> = NAMES
        .iter()
        .chain(RESERVED)
        .copied()
        .chain([longest.as_str()])
        .collect();
    let (early, late) = names.split_at(names.len() / 2);
    let put = async |names: &[&str]| -> Result<()> {
        for name in names {
            lab.user.put("plain", name, NO_HEADERS, body(name)).await?;
        }
        Ok(())
    };
    put(early).await?;
    let policies = [
        lab.policy_to("hashed", "plain", "", ""),
        lab.policy_to("prefixed", "plain", "prefix: /pre/fix/", ""),
        lab.policy_to("bare", "plain", "prefix: \"\"", "")
            .replace("bucket: backup", "bucket: root"),
    ];
    lab.policies.apply("names.yaml", &policies.join("---\n"))?;
    let mut agent = lab.agent().await?;
    put(late).await?;

    let cut: String = format!("plain/{longest}").chars().take(256).collect();
    let too_long = (cut, "NameNotRepresentable".to_owned());
    let mut with_prefix: BTreeSet<_> = RESERVED
        .iter()
        .map(|name| (format!("plain/{name}"), "ReservedName".to_owned()))
        .collect();
    let bare = with_prefix.clone();
    with_prefix.insert(too_long.clone());
    assert_eq!(
        settled(&mut agent, "hashed", 1).await?,
        BTreeSet::from([too_long])
    );
    assert_eq!(settled(&mut agent, "prefixed", 4).await?, with_prefix);
    assert_eq!(settled(&mut agent, "bare", 3).await?, bare);

    let mut expected = BTreeMap::new();
    for name in NAMES {
        expected.insert(format!("19dae2/AUTH_test/plain/{name}"), *name);
        expected.insert(format!("pre/fix/{name}"), *name);
    }
    for name in RESERVED {
        expected.insert(format!("19dae2/AUTH_test/plain/{name}"), *name);
    }
    let found = lab.remote();
    let keys: BTreeSet<&String> = found.keys().collect();
    assert_eq!(keys, expected.keys().collect());
    for (key, name) in &expected {
        is_copy(
            found.get(key).map(|copy| &**copy),
            body(name).as_bytes(),
            ("AUTH_test", "plain", name),
        )?;
    }
    let found = lab.s3.objects("root");
    let bare: BTreeSet<&str> = NAMES.iter().copied().chain([longest.as_str()]).collect();
    assert_eq!(found.keys().map(String::as_str).collect::<BTreeSet<_>>(), bare);
    for name in bare {
        is_copy(
            found.get(name).map(|copy| &**copy),
            body(name).as_bytes(),
            ("AUTH_test", "plain", name),
        )?;
    }

    // An agent that knows nothing finds every one of them again, and sends none.
    assert!(agent.stop().await?.success());
    std::fs::remove_dir_all(lab.state())?;
    let before = (lab.remote(), lab.s3.objects("root"));
    let mut agent = lab.agent().await?;
    for (policy, held) in [("hashed", 1), ("prefixed", 4), ("bare", 3)] {
        settled(&mut agent, policy, held).await?;
    }
    assert_eq!((lab.remote(), lab.s3.objects("root")), before);

    for name in names {
        lab.user.delete("plain", name).await?;
    }
    agent
        .until("every copy is deleted", async |_| {
            Ok((lab.remote().is_empty() && lab.s3.objects("root").is_empty()).then_some(()))
        })
        .await?;
    for policy in ["hashed", "prefixed", "bare"] {
        settled(&mut agent, policy, 0).await?;
    }
    Ok(())
}

#[tokio::test]
async fn an_account_wide_policy_takes_every_container_but_those_with_a_policy_of_their_own() -> Result<()> {
    let lab = Lab::start().await?;
    for container in ["photos", "bücher ☃", "own", "photos_segments"] {
        lab.container(container).await?;
        lab.user
            .put(container, "a/ö", NO_HEADERS, format!("in {container}"))
            .await?;
    }
    lab.policies
        .apply("all.yaml", &lab.policy_to("all", "/*", "", ""))?;
    lab.policies.apply("own.yaml", &lab.policy("mine", "own", ""))?;
    let mut agent = lab.agent().await?;
    let arrived = |container: &str| {
        let copy = lab.at(&format!("{}/a/ö", hashed("AUTH_test", container)));
        is_copy(
            copy.as_deref(),
            format!("in {container}").as_bytes(),
            ("AUTH_test", container, "a/ö"),
        )
        .ok()
    };
    for container in ["photos", "bücher ☃", "photos_segments"] {
        agent.until(container, async |_| Ok(arrived(container))).await?;
    }
    agent
        .until("the container with its own policy", async |_| {
            Ok(lab.at("mine/a/ö"))
        })
        .await?;

    lab.container("new").await?;
    lab.user.put("new", "a/ö", NO_HEADERS, "in new").await?;
    agent
        .until("a container that was made later", async |_| Ok(arrived("new")))
        .await?;

    let report = agent
        .until_policy("everything is done", "all", |report| {
            report.initial_pass_complete && report.totals.objects == 4
        })
        .await?;
    assert_eq!((report.databases.open, report.held.rows), (4, 0), "{report:?}");
    assert_eq!(
        lab.remote().len(),
        5,
        "the container with its own policy is copied once"
    );

    lab.policies.remove("own.yaml")?;
    agent
        .until("the container without a policy of its own", async |_| {
            Ok(arrived("own"))
        })
        .await?;
    assert!(lab.at("mine/a/ö").is_some(), "a policy that goes deletes no data");
    Ok(())
}
