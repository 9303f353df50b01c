//! Finds the repository: the current folder or one of its parents.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// A checkout of the Atrium repository.
#[derive(Clone, Debug)]
pub struct Checkout {
    root: PathBuf,
}

impl Checkout {
    /// Finds the checkout that the current folder is in.
    ///
    /// # Errors
    /// Outside a checkout.
    pub fn find() -> anyhow::Result<Self> {
        let start = std::env::current_dir()?;
        start
            .ancestors()
            .find(|folder| folder.join("tools/devstack/Cargo.toml").is_file())
            .map(|root| Self { root: root.to_owned() })
            .with_context(|| format!("{} is not inside a checkout of Atrium", start.display()))
    }

    /// Its top folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where `make dev` keeps its addresses and logs.
    #[must_use]
    pub fn dev_folder(&self) -> PathBuf {
        self.root.join(".dev")
    }

    /// The file of the API's contract.
    #[must_use]
    pub fn openapi(&self) -> PathBuf {
        self.root.join("docs/api/openapi.yaml")
    }
}
