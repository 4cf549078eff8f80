//! Container images made by hand: one layer, no base image, no Dockerfile, no registry.
//!
//! The same contents always give the same bytes, so an image's id tells whether a cluster has it already.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::command;

/// What an image holds and how it starts.
pub(crate) struct Image {
    /// `name:tag`, as pods refer to it.
    pub(crate) reference: String,
    pub(crate) files: Vec<ImageFile>,
    /// Folders besides those that files are in, with their mode.
    pub(crate) folders: Vec<(String, u32)>,
    pub(crate) entrypoint: Vec<String>,
    /// `uid:gid`; root where empty.
    pub(crate) user: String,
}

/// A file of an image.
pub(crate) struct ImageFile {
    /// Absolute path in the image.
    pub(crate) path: String,
    /// The file on this machine that it is a copy of.
    pub(crate) source: PathBuf,
    pub(crate) mode: u32,
}

impl Image {
    /// The image of one static program, and a `/tmp` to write to.
    pub(crate) fn of_program(reference: &str, program: &Path) -> Result<Image> {
        let name = program
            .file_name()
            .with_context(|| format!("{} is no program", program.display()))?;
        let path = format!("/{}", name.to_string_lossy());
        Ok(Image {
            reference: reference.to_owned(),
            files: vec![ImageFile {
                path: path.clone(),
                source: program.to_owned(),
                mode: 0o755,
            }],
            folders: vec![("/tmp".to_owned(), 0o1777)],
            entrypoint: vec![path],
            user: String::new(),
        })
    }

    /// What can be told of the image without reading its files: equal looks mean an equal image.
    pub(crate) fn looks(&self) -> Result<String> {
        let mut looks = format!("{:?} {:?} {}", self.folders, self.entrypoint, self.user);
        for file in &self.files {
            let source = fs::metadata(&file.source).with_context(|| missing(file))?;
            let changed = source.modified()?;
            looks += &format!(
                "\n{} {:o} {} {changed:?}",
                file.path,
                file.mode,
                source.len()
            );
        }
        Ok(looks)
    }

    /// Writes the image as a docker archive, and returns its id (`sha256:...`).
    pub(crate) fn write(&self, archive: &Path) -> Result<String> {
        let layer_path = archive.with_extension("layer");
        let layer = self.write_layer(&layer_path)?;
        let config = serde_json::to_vec(&self.config(&layer))?;
        let id = hex(&config);
        let config_name = format!("{id}.json");
        let manifest = json!([{
            "Config": config_name,
            "RepoTags": [self.reference],
            "Layers": ["layer.tar"],
        }]);

        let mut tar = tar::Builder::new(BufWriter::new(File::create(archive)?));
        tar.append_data(
            &mut header(fs::metadata(&layer_path)?.len(), 0o644),
            "layer.tar",
            File::open(&layer_path)?,
        )?;
        append_bytes(&mut tar, &config_name, &config)?;
        append_bytes(&mut tar, "manifest.json", &serde_json::to_vec(&manifest)?)?;
        tar.into_inner()?.flush()?;
        fs::remove_file(&layer_path)?;
        Ok(format!("sha256:{id}"))
    }

    /// Writes the layer, and returns its digest.
    fn write_layer(&self, path: &Path) -> Result<String> {
        let hashing = Hashing {
            hash: Sha256::new(),
            inner: BufWriter::new(File::create(path)?),
        };
        let mut tar = tar::Builder::new(hashing);
        for (folder, mode) in self.all_folders() {
            let mut header = header(0, mode);
            header.set_entry_type(tar::EntryType::Directory);
            tar.append_data(
                &mut header,
                format!("{}/", folder.trim_start_matches('/')),
                io::empty(),
            )?;
        }
        let mut files: Vec<&ImageFile> = self.files.iter().collect();
        files.sort_by(|a, b| a.path.cmp(&b.path));
        for file in files {
            let source = File::open(&file.source).with_context(|| missing(file))?;
            tar.append_data(
                &mut header(source.metadata()?.len(), file.mode),
                file.path.trim_start_matches('/'),
                source,
            )?;
        }
        let mut hashing = tar.into_inner()?;
        hashing.inner.flush()?;
        Ok(format!("{:x}", hashing.hash.finalize()))
    }

    /// The folders asked for and the parents of all files, parents first.
    fn all_folders(&self) -> Vec<(String, u32)> {
        let mut all = self.folders.clone();
        let paths = self.files.iter().map(|file| &file.path);
        for path in paths.chain(self.folders.iter().map(|(folder, _)| folder)) {
            for parent in Path::new(path).ancestors().skip(1) {
                let parent = parent.to_string_lossy().into_owned();
                if parent != "/" && !parent.is_empty() && !all.iter().any(|(f, _)| *f == parent) {
                    all.push((parent, 0o755));
                }
            }
        }
        all.sort();
        all
    }

    fn config(&self, layer: &str) -> serde_json::Value {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        json!({
            "architecture": architecture,
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": {
                "Entrypoint": self.entrypoint,
                "User": self.user,
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/"],
            },
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer}")]},
        })
    }
}

/// A dynamic program of this machine and the libraries that it loads, each at its own path.
pub(crate) fn with_libraries(program: &Path) -> Result<Vec<ImageFile>> {
    let listed = command::output(Command::new("ldd").arg(program))?;
    let libraries = libraries_of(&listed);
    if libraries.is_empty() {
        bail!(
            "`ldd {}` names no library: is it a dynamic program?",
            program.display()
        );
    }
    let files = std::iter::once(program.to_owned()).chain(libraries);
    Ok(files
        .map(|source| ImageFile {
            path: source.to_string_lossy().into_owned(),
            source,
            mode: 0o755,
        })
        .collect())
}

/// Reads `libc.so.6 => /lib/libc.so.6 (0x...)` and `/lib64/ld-linux-x86-64.so.2 (0x...)`.
fn libraries_of(ldd: &str) -> Vec<PathBuf> {
    ldd.lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from)
        .collect()
}

fn missing(file: &ImageFile) -> String {
    format!("cannot read {}; build it first", file.source.display())
}

/// Nothing of this machine or this moment gets into an image: no times, no owners.
fn header(size: u64, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(mode);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn append_bytes<W: Write>(tar: &mut tar::Builder<W>, name: &str, bytes: &[u8]) -> Result<()> {
    tar.append_data(&mut header(bytes.len() as u64, 0o644), name, bytes)?;
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

/// Hashes what is written through it.
struct Hashing<W> {
    hash: Sha256,
    inner: W,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_contents_make_the_same_image() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let program = folder.path().join("program");
        fs::write(&program, "a program")?;
        let image = Image::of_program("demo:1", &program)?;
        let (one, two) = (folder.path().join("one.tar"), folder.path().join("two.tar"));

        let id = image.write(&one)?;
        assert_eq!(id, image.write(&two)?);
        assert_eq!(fs::read(&one)?, fs::read(&two)?);

        fs::write(&program, "another program")?;
        assert_ne!(id, image.write(&two)?);
        Ok(())
    }

    #[test]
    fn an_archive_holds_layer_config_and_manifest() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let program = folder.path().join("program");
        fs::write(&program, "a program")?;
        let mut image = Image::of_program("demo:1", &program)?;
        image.files[0].path = "/usr/bin/program".to_owned();
        let archive = folder.path().join("image.tar");
        let id = image.write(&archive)?;

        let mut entries = Vec::new();
        for entry in tar::Archive::new(File::open(&archive)?).entries()? {
            entries.push(entry?.path()?.to_string_lossy().into_owned());
        }
        let config = format!("{}.json", id.trim_start_matches("sha256:"));
        assert_eq!(entries, ["layer.tar", &config, "manifest.json"]);
        let folders: Vec<String> = image.all_folders().into_iter().map(|(f, _)| f).collect();
        assert_eq!(folders, ["/tmp", "/usr", "/usr/bin"]);
        Ok(())
    }

    #[test]
    fn libraries_are_read_from_ldd() {
        let ldd = "\tlinux-vdso.so.1 (0x00007ffc)\n\
                   \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                   \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        assert_eq!(
            libraries_of(ldd),
            [
                PathBuf::from("/lib/x86_64-linux-gnu/libc.so.6"),
                PathBuf::from("/lib64/ld-linux-x86-64.so.2")
            ]
        );
    }
}
