//! Files that tests read.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// All files of a folder and of those below it whose names end so, without the dot.
///
/// # Panics
/// There is no such folder.
#[must_use]
pub fn below(folder: &Path, extension: &str) -> Vec<PathBuf> {
    assert!(folder.is_dir(), "there is no folder {}", folder.display());
    let mut files = all(folder);
    files.retain(|path| path.extension().is_some_and(|its| its == extension));
    files
}

/// All files of a folder and of those below it. What goes while it is looked at is left out.
#[must_use]
pub fn all(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(all(&path));
        } else {
            files.push(path);
        }
    }
    files
}
