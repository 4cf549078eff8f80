//! The files of the workspace that tests read.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// All files of a folder and of those below it whose names end so, without the dot.
///
/// # Panics
/// The folder cannot be read.
#[must_use]
pub fn below(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|why| panic!("{}: {why}", folder.display()));
    let mut files = Vec::new();
    for entry in entries {
        let path = entry
            .unwrap_or_else(|why| panic!("{}: {why}", folder.display()))
            .path();
        if path.is_dir() {
            files.extend(below(&path, extension));
        } else if path.extension().is_some_and(|its| its == extension) {
            files.push(path);
        }
    }
    files
}
