//! The remote of a policy, and how to reach it.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the remote speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Protocol {
    /// AWS S3, an S3 clone, or Google Cloud Storage through its XML API.
    S3,
    /// Another Swift cluster.
    Swift,
}

/// The remote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("self.protocol != 'Swift' || has(self.endpoint)")
    .message("protocol Swift needs target.endpoint, the URL of the remote's auth service").field_path(".endpoint"))]
#[x_kube(validation = Rule::new("self.protocol != 'Swift' || !has(self.region)")
    .message("target.region is for protocol S3: remove it").field_path(".region"))]
#[x_kube(validation = Rule::new("self.protocol != 'Swift' || !has(self.pathStyle)")
    .message("target.pathStyle is for protocol S3: remove it").field_path(".pathStyle"))]
#[x_kube(validation = Rule::new("self.protocol != 'Swift' || !has(self.requestChecksums)")
    .message("target.requestChecksums is for protocol S3: remove it").field_path(".requestChecksums"))]
#[x_kube(validation = Rule::new("self.protocol != 'Swift' || !has(self.encryption)")
    .message("target.encryption is for protocol S3: remove it").field_path(".encryption"))]
#[x_kube(validation = Rule::new("self.protocol != 'Swift' || !has(self.storageClass)")
    .message("target.storageClass is for protocol S3 (for Swift there is target.swift.storagePolicy): remove it")
    .field_path(".storageClass"))]
#[x_kube(validation = Rule::new("self.protocol != 'Swift' || !has(self.credentials.ambient)")
    .message("ambient credentials are for protocol S3: name a Secret with USERNAME and PASSWORD in target.credentials.secretRef")
    .field_path(".credentials"))]
#[x_kube(validation = Rule::new("self.protocol != 'S3' || !has(self.swift)")
    .message("target.swift is for protocol Swift: remove it").field_path(".swift"))]
#[x_kube(validation = Rule::new(
        "self.protocol != 'S3' || self.bucket == '/*' || self.bucket.matches('^[A-Za-z0-9][A-Za-z0-9._-]{1,220}[A-Za-z0-9]$')"
    )
    .message("target.bucket is no bucket name of S3: 3 to 222 letters, digits, dots, hyphens and underscores, a letter or digit at both ends")
    .field_path(".bucket"))]
#[x_kube(validation = Rule::new("self.protocol != 'Swift' || self.bucket == '/*' || !self.bucket.contains('/')")
    .message("target.bucket is a container's name and holds no slash (/* stands for all containers)")
    .field_path(".bucket"))]
pub struct Target {
    /// What the remote speaks. It cannot be changed.
    pub protocol: Protocol,
    /// The remote's URL. Absent: AWS. `https://storage.googleapis.com`: Google. Else that of an S3 clone, or of the
    /// auth service of a Swift cluster. Logins do not belong here but into the Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(validation = Rule::new("!self.contains('@')")
        .message("a URL with user information is refused: the login belongs into the Secret of target.credentials"))]
    #[x_kube(validation = Rule::new(
            "self.contains('@') || self.matches('^https?://([A-Za-z0-9._-]+|\\\\[[0-9A-Fa-f:.]+\\\\])(:[0-9]{1,5})?(/[!\"$-~]*)?$') && !self.contains('?')"
        ).message("the endpoint must be http:// or https://, a host, and at most a port and a path"))]
    pub endpoint: Option<String>,
    /// The region that requests are signed for; us-east-1 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), regex(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]*$"))]
    pub region: Option<String>,
    /// The bucket, or container. For an account-wide policy with a Swift remote: the prefix of the names of remote
    /// containers. `/*` stands for all containers in mode Migrate.
    #[schemars(length(min = 1, max = 256))]
    pub bucket: String,
    /// Prefix of the keys, without regard to slashes at its ends. Absent: keys start with a hash, the account and
    /// the container. Empty: keys are the names of the objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    #[x_kube(validation = Rule::new("!self.matches('^/*[.](manifests|onespace)(/|$)')")
        .message("a prefix that starts with .manifests or .onespace is refused: these names hold onespace's own objects"))]
    pub prefix: Option<String>,
    /// Where the credentials are.
    pub credentials: Credentials,
    /// The bucket's name stands in the path instead of the host name. Default `Auto`: yes where an endpoint is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_style: Option<Toggle>,
    /// Requests carry the checksums of newer SDKs. Default `Auto`: only at AWS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_checksums: Option<Toggle>,
    /// Certificates to trust besides the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle: Option<CaBundle>,
    /// A forward proxy, `http://proxy:3128`. Its login stands in the Secret: PROXY_USERNAME and PROXY_PASSWORD.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(validation = Rule::new("!self.contains('@')")
        .message("a URL with user information is refused: a proxy's login belongs into the Secret, as PROXY_USERNAME and PROXY_PASSWORD"))]
    #[x_kube(validation = Rule::new(
            "self.contains('@') || self.matches('^https?://([A-Za-z0-9._-]+|\\\\[[0-9A-Fa-f:.]+\\\\])(:[0-9]{1,5})?/?$')"
        ).message("httpProxy must be http:// or https://, a host, and at most a port"))]
    pub http_proxy: Option<String>,
    /// Server-side encryption. Default: `AES256` at AWS, else `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encryption>,
    /// Storage class of copies as S3 names it, `STANDARD_IA`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), regex(pattern = "^[A-Z0-9_]+$"))]
    pub storage_class: Option<String>,
    /// Options of a Swift remote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swift: Option<Swift>,
}

/// Where the credentials are. Exactly one of `secretRef` and `ambient` is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("has(self.secretRef) != has(self.ambient)")
    .message("give exactly one of secretRef and ambient"))]
pub struct Credentials {
    /// A Secret of the policy's own namespace. For S3: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and perhaps
    /// AWS_SESSION_TOKEN. For Swift: USERNAME and PASSWORD.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
    /// What the agents' surroundings offer: a projected token (IRSA), ECS, or the instance's metadata service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ambient: Option<Ambient>,
}

/// A Secret of the policy's own namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretRef {
    /// Its name.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = "^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")
    )]
    pub name: String,
}

/// Credentials from the agents' surroundings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Ambient {
    /// The role to take on; absent: the one that the surroundings give.
    #[serde(default, rename = "roleARN", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048), regex(pattern = "^arn:[!-~]+$"))]
    pub role_arn: Option<String>,
}

/// A choice that is probed unless it is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Toggle {
    /// Found out once for each target.
    #[default]
    Auto,
    /// Yes.
    Always,
    /// No.
    Never,
}

/// Certificates to trust.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CaBundle {
    /// A ConfigMap of the policy's own namespace.
    pub config_map_ref: ConfigMapKeyRef,
}

/// One key of a ConfigMap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConfigMapKeyRef {
    /// Name of the ConfigMap.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = "^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")
    )]
    pub name: String,
    /// The key that holds certificates in PEM.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[-._a-zA-Z0-9]+$"))]
    pub key: String,
}

/// Server-side encryption.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("self.type == 'KMS' || !has(self.kmsKeyID)")
    .message("kmsKeyID is for encryption type KMS: remove it").field_path(".kmsKeyID"))]
pub struct Encryption {
    /// Which kind.
    #[serde(rename = "type")]
    pub kind: EncryptionType,
    /// Id or ARN of the KMS key; absent: the account's default key.
    #[serde(default, rename = "kmsKeyID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048), regex(pattern = "^[!-~]+$"))]
    pub kms_key_id: Option<String>,
}

/// Kinds of server-side encryption.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum EncryptionType {
    /// Nothing is asked for: the bucket's own default holds.
    None,
    /// With keys of the store (SSE-S3).
    AES256,
    /// With a key of the key management service (SSE-KMS).
    KMS,
}

/// Options of a Swift remote.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Swift {
    /// How to log in; V1 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<SwiftAuth>,
    /// Use another account's storage URL with our token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), regex(pattern = "^[^/]+$"))]
    pub account: Option<String>,
    /// Storage policy of containers that are created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[A-Za-z0-9-]+$"))]
    pub storage_policy: Option<String>,
}

/// How to log in to a Swift remote.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("(has(self.type) && self.type == 'KeystoneV2') == has(self.tenantName)")
    .message("auth type KeystoneV2 needs tenantName, and only that type takes it").field_path(".tenantName"))]
#[x_kube(validation = Rule::new("(has(self.type) && self.type == 'KeystoneV3') == has(self.projectName)")
    .message("auth type KeystoneV3 needs projectName, and only that type takes it").field_path(".projectName"))]
#[x_kube(validation = Rule::new(
        "(has(self.type) && self.type == 'KeystoneV3') || !(has(self.projectDomainName) || has(self.userDomainName))"
    ).message("projectDomainName and userDomainName are for auth type KeystoneV3: remove them"))]
pub struct SwiftAuth {
    /// The kind of authentication; `V1` when absent.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<SwiftAuthType>,
    /// KeystoneV2: the tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub tenant_name: Option<String>,
    /// KeystoneV3: the project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub project_name: Option<String>,
    /// KeystoneV3: the project's domain; `Default` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub project_domain_name: Option<String>,
    /// KeystoneV3: the user's domain; `Default` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub user_domain_name: Option<String>,
}

/// Kinds of authentication at a Swift remote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SwiftAuthType {
    /// `X-Auth-User` and `X-Auth-Key`.
    #[default]
    V1,
    /// Keystone, identity API 2.0.
    KeystoneV2,
    /// Keystone, identity API 3.
    KeystoneV3,
}
