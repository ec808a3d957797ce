//! A remote that is reached through a forward proxy.

use anyhow::Result;
use onespace_e2e::forward_proxy::{ForwardProxy, LOGIN};
use onespace_e2e::lab::Lab;
use onespace_e2e::swift::NO_HEADERS;

#[tokio::test]
async fn objects_go_through_the_forward_proxy_once_its_login_is_right_and_never_past_it() -> Result<()> {
    let (lab, proxy) = (Lab::start().await?, ForwardProxy::start().await?);
    lab.container("photos").await?;
    lab.user
        .put("photos", "a", NO_HEADERS, "through the proxy")
        .await?;
    let target = format!("prefix: photos\nhttpProxy: {}", proxy.url());
    let without_login = lab.policy_to("photos", "photos", &target, "");
    let with = |password: &str| {
        let login = format!(
            "stringData: {{PROXY_USERNAME: {}, PROXY_PASSWORD: {password}, ",
            LOGIN.0
        );
        without_login.replace("stringData: {", &login)
    };
    lab.policies.apply("photos.yaml", &without_login)?;
    let mut agent = lab.agent().await?;
    let paused = agent.until_paused("photos", "Unreachable").await?;
    assert!(
        paused.message.as_deref().unwrap_or_default().contains("proxy"),
        "{paused:?}"
    );

    lab.policies.apply("photos.yaml", &with("wrong"))?;
    agent.until_loaded(&lab.policies).await?;
    // tinyproxy answers a wrong password like a remote that refuses its keys.
    let paused = agent.until_paused("photos", "InvalidCredentials").await?;
    assert!(
        paused.message.as_deref().unwrap_or_default().contains("proxy"),
        "{paused:?}"
    );
    assert!(lab.remote().is_empty(), "nothing went past the proxy");

    lab.policies.apply("photos.yaml", &with(LOGIN.1))?;
    agent
        .until("the object", async |_| Ok(lab.at("photos/a")))
        .await?;
    let before = proxy.requests()?;
    lab.user.put("photos", "b", NO_HEADERS, "this, too").await?;
    agent
        .until("the second object", async |_| Ok(lab.at("photos/b")))
        .await?;
    assert!(proxy.requests()? > before, "its connections are the proxy's");
    assert!(!agent.said().contains(LOGIN.1), "the password is in no log");
    Ok(())
}

#[tokio::test]
async fn a_proxy_at_an_address_that_must_not_be_dialled_is_not_dialled() -> Result<()> {
    let (mut lab, proxy) = (Lab::start().await?, ForwardProxy::start().await?);
    lab.container("photos").await?;
    let target = format!("prefix: photos\nhttpProxy: {}", proxy.url());
    // The remote's own address is the proxy's business.
    let policy = lab.policy_to("photos", "photos", &target, "");
    let policy = policy.replace(&lab.s3.endpoint(), "http://s3.example.com:9000");
    lab.policies.apply("photos.yaml", &policy)?;
    lab.settings.deny_remote = vec!["127.0.0.0/8"];
    let mut agent = lab.unready_agent().await?;
    let refused = agent
        .until("the refusal", async |agent| {
            Ok(agent.report().await?.config.refused.into_iter().next())
        })
        .await?;
    assert_eq!(refused.reason, "AddressDenied", "{refused:?}");
    assert_eq!(proxy.requests()?, 0);
    Ok(())
}
