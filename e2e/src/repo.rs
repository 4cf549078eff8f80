//! A team's working clone: edits, commits and pushes with the real git.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// A clone that pushes to a bare repository which Flux reads.
pub struct Repo {
    dir: PathBuf,
}

impl Repo {
    /// Makes a new working tree in `dir` from the files of `layout`, with these edits (file, from,
    /// to), and pushes it to `bare` as the only history of branch `main`.
    ///
    /// # Errors
    /// When a file cannot be copied or git fails.
    pub fn publish(
        dir: &Path,
        layout: &Path,
        bare: &Path,
        edits: &[(&str, &str, &str)],
    ) -> Result<Self> {
        if dir.exists() {
            std::fs::remove_dir_all(dir)?;
        }
        copy_tree(layout, dir)
            .with_context(|| format!("copying {} to {}", layout.display(), dir.display()))?;
        let repo = Self {
            dir: dir.to_owned(),
        };
        repo.git(&["init", "--quiet", "--initial-branch=main"])?;
        repo.git(&["remote", "add", "origin", &bare.display().to_string()])?;
        for (file, from, to) in edits {
            repo.edit(file, from, to)?;
        }
        repo.commit("The application and its MeshRollout")?;
        repo.git(&["push", "--quiet", "--force", "origin", "main"])?;
        Ok(repo)
    }

    /// The working tree that an earlier [`Repo::publish`] has made.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(dir: &Path) -> Result<Self> {
        if !dir.join(".git").exists() {
            bail!(
                "{} is no clone: the demo's story makes it, and has not been played",
                dir.display()
            );
        }
        Ok(Self {
            dir: dir.to_owned(),
        })
    }

    /// Where the working tree is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Replaces text in a file; the text must be there.
    ///
    /// # Errors
    /// When the file lacks the text: the demo's layout and story do not fit together.
    pub fn edit(&self, file: &str, from: &str, to: &str) -> Result<()> {
        let path = self.dir.join(file);
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        if !text.contains(from) {
            bail!("{} does not contain `{from}`", path.display());
        }
        std::fs::write(&path, text.replace(from, to))?;
        Ok(())
    }

    /// Commits everything, pushes, and returns the commit's id.
    ///
    /// # Errors
    /// When git fails.
    pub fn push(&self, message: &str) -> Result<String> {
        self.commit(message)?;
        self.git(&["push", "--quiet", "origin", "main"])?;
        self.head()
    }

    /// `git revert` of the last commit, pushed.
    ///
    /// # Errors
    /// When git fails.
    pub fn revert(&self) -> Result<String> {
        self.git(&["revert", "--no-edit", "HEAD"])?;
        self.git(&["push", "--quiet", "origin", "main"])?;
        self.head()
    }

    fn head(&self) -> Result<String> {
        Ok(self.git(&["rev-parse", "HEAD"])?.trim().to_owned())
    }

    fn commit(&self, message: &str) -> Result<()> {
        self.git(&["add", "--all"])?;
        self.git(&["commit", "--quiet", "--message", message])?;
        Ok(())
    }

    fn git(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new("git")
            .args(["-c", "user.name=team", "-c", "user.email=team@demo.invalid"])
            .args(["-c", "commit.gpgsign=false"])
            .args(arguments)
            .current_dir(&self.dir)
            .output()
            .context("running git: install it")?;
        if !output.status.success() {
            bail!(
                "git {} failed: {}",
                arguments.join(" "),
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
