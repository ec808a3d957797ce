//! One cluster for all the tests of a program: starting one takes seconds.

use std::sync::{Arc, LazyLock};

use anyhow::Result;
use tokio::runtime::Runtime;
use tokio::sync::{OnceCell, RwLock};

use crate::lab::Lab;
use crate::swift::{Options, Swift};

/// A cluster that starts with the first test that needs it and ends with the program. Each test has a [`Lab`] of its
/// own on it (remote, policies, agents), and containers of its own.
pub struct Shared {
    options: fn() -> Options,
    // Servers outlive the test that started them, so the runtime does, too.
    runtime: LazyLock<Runtime>,
    swift: OnceCell<Arc<Swift>>,
    turns: RwLock<()>,
}

impl Shared {
    /// A cluster of this kind.
    #[must_use]
    pub const fn new(options: fn() -> Options) -> Self {
        #[allow(clippy::expect_used, reason = "without a runtime there is no test")]
        Self {
            options,
            runtime: LazyLock::new(|| Runtime::new().expect("a runtime")),
            swift: OnceCell::const_new(),
            turns: RwLock::const_new(()),
        }
    }

    /// Runs a scenario that leaves every server running, beside others.
    ///
    /// # Errors
    /// The scenario's.
    pub fn together(&'static self, scenario: impl AsyncFnOnce(Lab) -> Result<()>) -> Result<()> {
        self.runtime.block_on(async {
            let _turn = self.turns.read().await;
            scenario(self.lab().await?).await
        })
    }

    /// Runs a scenario that stops servers: no other runs meanwhile. Afterwards every server runs again.
    ///
    /// # Errors
    /// The scenario's, or a server does not start again.
    pub fn alone(&'static self, scenario: impl AsyncFnOnce(Lab) -> Result<()>) -> Result<()> {
        self.runtime.block_on(async {
            let _turn = self.turns.write().await;
            let lab = self.lab().await?;
            let swift = Arc::clone(&lab.swift);
            let outcome = scenario(lab).await;
            swift.mend().await?;
            outcome
        })
    }

    async fn lab(&self) -> Result<Lab> {
        let start = async || Swift::start((self.options)()).await.map(Arc::new);
        let mut lab = Lab::on(Arc::clone(self.swift.get_or_try_init(start).await?)).await?;
        // Scenarios end when everything is verified, so they wait as long as this.
        lab.settings.slack = "2s";
        Ok(lab)
    }
}
