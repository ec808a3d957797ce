//! The closed lists of reasons: why a row is held, why a mapping pauses, why a mapping is refused.
//!
//! A reason is a stable CamelCase word. The same word stands in `/status`, in conditions, in metric labels and in
//! logs, and `SEMANTICS.md` explains each.

use std::fmt;

macro_rules! reasons {
    ($(#[$outer:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident,)+ }) => {
        $(#[$outer])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl $name {
            /// Every reason, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The stable word.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant),)+ }
            }

            /// The reason of that word.
            #[must_use]
            pub fn from_word(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|reason| reason.as_str() == word)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

reasons! {
    /// Why one row waits in the durable set instead of being done.
    HoldReason {
        /// The remote cannot hold a key of this form (too long, a segment it refuses, folded onto another key).
        NameNotRepresentable,
        /// Under a prefix of its own the object's name would land on one of onespace's own keys.
        ReservedName,
        /// A metadata name or value that S3 cannot hold.
        MetadataNotRepresentable,
        /// The remote stored other metadata than were sent.
        MetadataAltered,
        /// The remote stored another body than was sent.
        BodyAltered,
        /// An unmarked, different object at our key is newer than the row: a stranger's write.
        RemoteNewer,
        /// The object at our key carries the mark of another source.
        ForeignCopy,
        /// A delete met an object that is neither marked nor adopted.
        NotOurs,
        /// The manifest of a large object cannot be read or resolved.
        InvalidManifest,
        /// A segment of a large object is missing or is not the one that the manifest names.
        SegmentMismatch,
        /// A large object that does not fit into 10,000 parts of at most 5 GiB.
        TooLarge,
        /// The symlink's target is not there, or is not the one that the link names.
        SymlinkDangling,
        /// The object server answered with an older state than the row's.
        SourceBehind,
        /// Swift answered 404 without proof that the object is deleted.
        SourceUnproven,
        /// Swift failed to answer for this object.
        SourceFailed,
        /// The remote refuses this key for good (a 4xx that will not change).
        Refused,
        /// The remote denies access to this key, though it grants it to others.
        KeyForbidden,
        /// The remote fails for this key again and again, though it works for others.
        RemoteFailed,
        /// The row itself cannot be read (an unknown form of timestamp, a damaged value).
        UnreadableRow,
        /// The object changed while it was copied.
        ChangedMeanwhile,
        /// No failure: its bytes, or those of an earlier version of the name, are still on their way to the remote. It
        /// counts as pending.
        Transferring,
        /// Another agent's delete, one of so many that a person is to look at them first.
        DeleteWaits,
    }
}

reasons! {
    /// Why a whole mapping pauses. No row is charged for it.
    PauseReason {
        /// The remote's host cannot be reached (name, route, refused, reset).
        Unreachable,
        /// The TLS handshake failed.
        TlsFailed,
        /// The remote did not answer in time.
        Timeout,
        /// The remote answers 5xx.
        ServerError,
        /// The remote asks to slow down (503 SlowDown, 429).
        SlowDown,
        /// The credentials are wrong (unknown key, bad signature, expired token).
        InvalidCredentials,
        /// The credentials may not do this.
        AccessDenied,
        /// The bucket does not exist.
        NoSuchBucket,
        /// The bucket or the account is full.
        QuotaExceeded,
        /// The remote's address is one that this agent must not reach.
        AddressDenied,
        /// The remote's answer could not be understood.
        UnexpectedAnswer,
        /// The internal endpoint cannot be reached, or answers with errors.
        SourceUnavailable,
        /// The internal endpoint is a public proxy: it hides the times on which every check rests.
        InternalEndpointRequired,
        /// The internal endpoint hands out ciphertext: its pipeline lacks the cluster's keymaster and encryption.
        EndpointCannotDecrypt,
        /// The agent's own state cannot be read or written (disk full, damaged): nothing can be recorded durably.
        StateUnavailable,
        /// The durable set of held rows is full: the watermark stops, nothing is dropped.
        HeldSetFull,
        /// The agent failed in itself: a mistake in its program.
        InternalError,
    }
}

reasons! {
    /// What is to be said of a mapping that runs.
    Notice {
        /// This node should have a database of the source, and has none.
        SourceNotFound,
        /// This node's container server is silent: no new rows come into its databases.
        ContainerServerSilent,
    }
}

reasons! {
    /// Why deletes wait for a person while all else goes on.
    StallReason {
        /// They exceed the policy's `deleteBudget`.
        DeletesHeld,
        /// A reconciling pass would delete more than one copy in a hundred.
        MassDelete,
    }
}

reasons! {
    /// Why a reconciling pass does not look at a database, though one is due.
    PassRefusal {
        /// The container is sharded, or is being sharded: its rows are elsewhere.
        ContainerSharded,
        /// The replicas of the container do not say the same: one of them lacks rows.
        PeersDiffer,
        /// A replica of the container does not answer.
        PeerSilent,
        /// The name in a row cannot be read: it could be any copy's.
        NameUnreadable,
    }
}

reasons! {
    /// Why a mapping is refused: nothing of it runs.
    RefuseReason {
        /// The mapping could not be parsed.
        Unparseable,
        /// It requires a feature that this agent does not have.
        FeatureUnknown,
        /// Its mode is not the one that its state was made with.
        ModeChanged,
        /// Its remote's address is one that this agent must not reach.
        AddressDenied,
        /// Its credentials are not among the credential files.
        CredentialsMissing,
    }
}

reasons! {
    /// Why a policy is not accepted: it becomes no mapping, and no agent hears of it.
    PolicyFault {
        /// A field has a value that it cannot have.
        Invalid,
        /// `exclude` is no regular expression that can be used.
        InvalidPattern,
        /// The endpoint is no address.
        InvalidEndpoint,
        /// The option exists, but this version does not do it yet.
        NotYetSupported,
        /// No AccountGrant lets the policy's namespace do this.
        NotGranted,
        /// Another policy has a claim that excludes this one.
        Conflict,
        /// The shard that the mapping belongs to is full.
        TooLarge,
        /// The Secret with the credentials is not there.
        SecretNotFound,
        /// The Secret lacks a key, or holds something that no credential can be.
        SecretInvalid,
        /// The Secret is there, or may be, and the API server does not hand it out.
        SecretUnavailable,
        /// The ConfigMap with the certificates is not there.
        ConfigMapNotFound,
        /// The ConfigMap lacks the key, or holds no certificate there.
        ConfigMapInvalid,
        /// The ConfigMap is there, or may be, and the API server does not hand it out.
        ConfigMapUnavailable,
    }
}

impl PolicyFault {
    /// Whether it may be over by itself: what the policy refers to could not be got, and is tried again.
    #[must_use]
    pub const fn is_tried_again(self) -> bool {
        matches!(self, Self::SecretUnavailable | Self::ConfigMapUnavailable)
    }
}

reasons! {
    /// Reasons of a policy's conditions, besides those of the other lists: why it is not accepted, why agents pause or
    /// refuse it.
    ConditionReason {
        /// It is valid, granted and without conflict.
        Accepted,
        /// It is not: Accepted says why.
        NotAccepted,
        /// The credentials are there.
        Found,
        /// An agent has used the credentials.
        Working,
        /// Something must be there first: another condition says what.
        Waiting,
        /// No agent reports the policy.
        NoAgent,
        /// Not every agent runs the newest generation yet.
        AgentsBehind,
        /// No agent has a database of the container.
        SourceNotFound,
        /// The policy says that agents stop.
        Suspended,
        /// Agents are at work.
        Running,
        /// Nobody must act.
        Progressing,
        /// Not every database was read once.
        FirstPass,
        /// Every database was read once.
        FirstPassComplete,
        /// An agent is silent, or a node with a replica has none.
        AgentUnreachable,
        /// Container databases cannot be read.
        DatabasesUnreadable,
        /// Rows were released whose objects would be hidden if the policy went.
        ArchivedDataWouldHide,
        /// As many rows are in step in time as the objective asks for.
        InTime,
        /// Fewer are.
        Late,
        /// All is as it should be.
        Healthy,
    }
}
