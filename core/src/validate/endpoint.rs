//! The remote's address, for comparing remotes.

/// Where a remote is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Endpoint {
    /// AWS: the policy names no endpoint.
    Aws,
    /// A host with its port, and the path where the endpoint has one.
    Host {
        /// In lower case.
        host: String,
        /// Given, or the scheme's own.
        port: u16,
        /// Without slashes at its end; mostly empty.
        path: String,
    },
}

impl Endpoint {
    /// Reads `http(s)://host[:port][/path]`. `None` for anything else, and for a port that cannot be.
    #[must_use]
    pub fn parse(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let default_port = match scheme {
            "http" => 80,
            "https" => 443,
            _ => return None,
        };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        // An IPv6 address stands in brackets and holds colons itself.
        let after_host = authority.rfind(']').map_or(0, |end| end + 1);
        let (host, port) = match authority[after_host..].find(':') {
            Some(colon) => {
                let (host, port) = authority.split_at(after_host + colon);
                (host, port[1..].parse().ok().filter(|port| *port > 0)?)
            }
            None => (authority, default_port),
        };
        if host.is_empty() || authority.contains(['@', '?', '#', ' ']) {
            return None;
        }
        Some(Self::Host {
            host: host.to_ascii_lowercase(),
            port,
            path: path.trim_end_matches('/').to_owned(),
        })
    }

    /// The namespace of buckets that it has part in: all of AWS has one, whatever the region or the name it is reached
    /// by (China has another).
    #[must_use]
    pub fn of_buckets(&self) -> Self {
        match self {
            Self::Host { host, .. } if host.ends_with(".amazonaws.com") => Self::Aws,
            Self::Host { host, .. } if host.ends_with(".amazonaws.com.cn") => Self::Host {
                host: "amazonaws.com.cn".to_owned(),
                port: 443,
                path: String::new(),
            },
            other => other.clone(),
        }
    }

    /// Whether this is AWS itself.
    #[must_use]
    pub fn is_aws(&self) -> bool {
        match self {
            Self::Aws => true,
            Self::Host { host, .. } => {
                host.ends_with(".amazonaws.com") || host.ends_with(".amazonaws.com.cn")
            }
        }
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Aws => f.write_str("aws"),
            Self::Host { host, port, path } => write!(f, "{host}:{port}{path}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(url: &str) -> Option<String> {
        Endpoint::parse(url).map(|endpoint| endpoint.to_string())
    }

    #[test]
    fn one_address_has_one_form() {
        assert_eq!(
            parsed("http://S3.example.com").as_deref(),
            Some("s3.example.com:80")
        );
        assert_eq!(
            parsed("https://s3.example.com/").as_deref(),
            Some("s3.example.com:443")
        );
        assert_eq!(
            parsed("http://10.0.0.1:9000/a/b/").as_deref(),
            Some("10.0.0.1:9000/a/b")
        );
        assert_eq!(parsed("http://[::1]:9000").as_deref(), Some("[::1]:9000"));
        assert_eq!(parsed("http://[::1]").as_deref(), Some("[::1]:80"));
    }

    #[test]
    fn what_is_no_address_is_none() {
        for url in [
            "",
            "s3.example.com",
            "ftp://a",
            "http://",
            "http://a:0",
            "http://a:70000",
            "http://a:b",
            "http://u@a",
            "http://a?b",
        ] {
            assert_eq!(parsed(url), None, "{url}");
        }
    }

    #[test]
    fn only_amazon_is_aws() {
        assert!(Endpoint::Aws.is_aws());
        assert!(
            Endpoint::parse("https://s3.eu-west-1.amazonaws.com")
                .unwrap()
                .is_aws()
        );
        assert!(
            !Endpoint::parse("https://amazonaws.com.example.net")
                .unwrap()
                .is_aws()
        );
    }

    proptest! {
        #[test]
        fn no_text_panics(url in "(https?://)?\\PC{0,20}") {
            let _ = Endpoint::parse(&url);
        }
    }
}
