//! Where things are, found from where this crate was compiled.

use std::path::{Path, PathBuf};

/// The folder of the workspace.
pub(crate) fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the xtask crate is in a folder of the workspace")
}

/// The folder of build outputs, also when the user has moved it.
pub(crate) fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(moved) => workspace().join(moved),
        None => workspace().join("target"),
    }
}

/// The folder of the Go module of that name.
pub(crate) fn module(name: &str) -> PathBuf {
    workspace().join("e2e/modules").join(name)
}
