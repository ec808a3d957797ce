//! `onespace verify` against a server.
#![allow(clippy::unwrap_used, missing_docs)]

use clap::Parser as _;
use onespace_e2e::s3::EmbeddedS3;
use onespace_e2e::s3::embedded::{Fault, Rule};

struct Ran {
    ok: bool,
    out: String,
    err: String,
}

struct Setting {
    server: EmbeddedS3,
    folder: tempfile::TempDir,
}

fn setting() -> Setting {
    let server = EmbeddedS3::start().unwrap();
    server.create_bucket("backup");
    let setting = Setting {
        server,
        folder: tempfile::tempdir().unwrap(),
    };
    setting.write("backup", setting.server.secret_key());
    setting
}

impl Setting {
    fn write(&self, bucket: &str, secret: &str) {
        let policy = format!(
            "apiVersion: onespace.dev/v1alpha1
kind: SyncPolicy
metadata: {{name: photos, namespace: swift}}
spec:
  mode: Sync
  source: {{account: AUTH_test, container: photos}}
  target:
    protocol: S3
    endpoint: {endpoint}
    bucket: {bucket}
    prefix: photos
    credentials: {{secretRef: {{name: keys}}}}
---
apiVersion: v1
kind: Secret
metadata: {{name: keys, namespace: swift}}
stringData: {{AWS_ACCESS_KEY_ID: {key}, AWS_SECRET_ACCESS_KEY: {secret}}}
",
            endpoint = self.server.endpoint(),
            key = self.server.access_key(),
        );
        std::fs::write(self.folder.path().join("policy.yaml"), policy).unwrap();
    }

    fn verify(&self, more: &[&str]) -> Ran {
        let file = self.folder.path().join("policy.yaml");
        let args = [&["onespace", "verify", "-f", file.to_str().unwrap()], more].concat();
        let args = onespace_cli::args::Args::try_parse_from(args).unwrap();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = onespace_cli::run::run(args, &mut out, &mut err);
        Ran {
            ok: code == std::process::ExitCode::SUCCESS,
            out: String::from_utf8(out).unwrap(),
            err: String::from_utf8(err).unwrap(),
        }
    }
}

#[test]
fn a_bucket_that_works_is_called_so_and_left_as_it_was() {
    let setting = setting();
    let ran = setting.verify(&[]);
    assert!(ran.ok, "{}", ran.err);
    assert_eq!(
        ran.out,
        "swift/photos: bucket backup: PUT, POST, HEAD, LIST, DELETE: done\n"
    );
    assert!(setting.server.objects("backup").is_empty());
    assert_eq!(setting.server.counts().of("PutObject"), 1);
    assert_eq!(setting.server.counts().of("DeleteObject"), 1);
}

#[test]
fn read_only_writes_nothing() {
    let setting = setting();
    let ran = setting.verify(&["--read-only", "--policy", "swift/photos"]);
    assert!(ran.ok, "{}", ran.err);
    assert_eq!(ran.out, "swift/photos: bucket backup: LIST, HEAD: done\n");
    let counts = setting.server.counts();
    assert_eq!(
        counts.total(),
        counts.of("ListObjectsV2") + counts.of("HeadObject")
    );
}

#[test]
fn wrong_keys_are_named_with_the_step_and_the_remedy() {
    let setting = setting();
    setting.write("backup", "not-the-secret");
    let ran = setting.verify(&[]);
    assert!(!ran.ok);
    assert!(
        ran.err.starts_with("swift/photos: bucket backup: PUT failed: "),
        "{}",
        ran.err
    );
    assert!(
        ran.err.contains("InvalidCredentials, SignatureDoesNotMatch"),
        "{}",
        ran.err
    );
    assert!(
        ran.err.contains("check the access key and the secret key"),
        "{}",
        ran.err
    );
    assert!(!ran.err.contains("not-the-secret"));
    assert!(setting.verify(&["--read-only"]).err.contains("LIST failed"));
}

#[test]
fn a_missing_bucket_is_named_with_the_step_and_the_remedy() {
    let setting = setting();
    setting.write("no-such-bucket", setting.server.secret_key());
    let ran = setting.verify(&[]);
    assert!(!ran.ok);
    assert!(
        ran.err.contains("PUT failed") && ran.err.contains("NoSuchBucket"),
        "{}",
        ran.err
    );
    assert!(ran.err.contains("check target.bucket"), "{}", ran.err);
}

#[test]
fn each_step_that_is_denied_is_named_and_the_object_is_removed() {
    for (operation, step) in [
        ("PutObject", "PUT"),
        ("CopyObject", "POST"),
        ("HeadObject", "HEAD"),
        ("ListObjectsV2", "LIST"),
        ("DeleteObject", "DELETE"),
    ] {
        let setting = setting();
        let rule = Rule {
            times: 10,
            ..Rule::next(operation, Fault::answer(403, "AccessDenied"))
        };
        setting.server.faults().inject(rule);
        let ran = setting.verify(&[]);
        assert!(!ran.ok, "{operation}");
        assert!(
            ran.err.contains(&format!("{step} failed")),
            "{operation}: {}",
            ran.err
        );
        assert!(ran.err.contains("AccessDenied"), "{operation}: {}", ran.err);
        let left = setting.server.objects("backup").len();
        assert_eq!(left, usize::from(operation == "DeleteObject"), "{operation}");
    }
}

#[test]
fn a_policy_that_is_not_there_is_an_error() {
    let ran = setting().verify(&["--policy", "other"]);
    assert!(!ran.ok);
    assert!(ran.err.contains("no such SyncPolicy"), "{}", ran.err);
}
