//! The last-good file: what a proxy that starts without its control plane serves from.
//!
//! ```text
//!  sluice-last-good 1 0123456789abcdef\n     format, checksum of what follows
//!  Saved                                      protobuf
//! ```
//!
//! Resources stand in it as they came, of the four types that a proxy takes. A key, a certificate
//! or a token is none of them.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use envoy_types::pb::envoy::service::discovery::v3::Resource;
use prost::Message;

/// Destinations without a connection for longer are not kept.
pub const KEPT: Duration = Duration::from_secs(24 * 3600);

/// Bytes of the largest file that is written or read: far above what the most destinations that
/// a proxy may ask for take.
const MAX: u64 = 64 << 20;
const MAGIC: &[u8] = b"sluice-last-good ";
const FORMAT: &[u8] = b"1";

/// What is kept.
#[derive(Clone, PartialEq, Message)]
pub struct Saved {
    /// When it was written, in milliseconds since 1970.
    #[prost(uint64, tag = "1")]
    pub written_ms: u64,
    /// When the control plane had last been heard, in milliseconds since 1970.
    #[prost(uint64, tag = "2")]
    pub contact_ms: u64,
    /// Where applications want to go.
    #[prost(message, repeated, tag = "3")]
    pub destinations: Vec<Destination>,
    /// All that the destinations need, as it came.
    #[prost(message, repeated, tag = "4")]
    pub resources: Vec<Resource>,
}

/// A name that is asked for.
#[derive(Clone, PartialEq, Message)]
pub struct Destination {
    /// Of its listener.
    #[prost(string, tag = "1")]
    pub name: String,
    /// When there was last a connection to it, in milliseconds since 1970.
    #[prost(uint64, tag = "2")]
    pub used_ms: u64,
    /// Whether the control plane said that it is no Service.
    #[prost(bool, tag = "3")]
    pub absent: bool,
}

impl Destination {
    /// Whether it was used lately enough to be kept. A use in the future is one of a clock that
    /// was set back since.
    #[must_use]
    pub fn is_kept(&self, now_ms: u64) -> bool {
        u128::from(now_ms.saturating_sub(self.used_ms)) <= KEPT.as_millis()
    }
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    /// Nothing of ours is so large.
    #[error("has {0} bytes, more than the {MAX} that are read")]
    TooLarge(u64),
    /// Somebody else's.
    #[error("is no last-good file")]
    Foreign,
    /// Of another version of this program.
    #[error("has format `{0}`, and this version reads `1`")]
    Format(String),
    /// Not what was written.
    #[error("does not match its checksum: it is damaged or cut off")]
    Damaged,
    /// What was written is not what is expected.
    #[error("cannot be decoded: {0}")]
    Decode(#[from] prost::DecodeError),
}

/// Reads the file; none where there is none.
///
/// # Errors
/// [`Unusable`], which completes a sentence about the file.
pub fn read(path: &Path) -> Result<Option<Saved>, Unusable> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let length = file.metadata()?.len();
    if length > MAX {
        return Err(Unusable::TooLarge(length));
    }
    let mut bytes = Vec::new();
    file.take(MAX).read_to_end(&mut bytes)?;
    decode(&bytes).map(Some)
}

fn decode(bytes: &[u8]) -> Result<Saved, Unusable> {
    let rest = bytes.strip_prefix(MAGIC).ok_or(Unusable::Foreign)?;
    let end = rest.iter().position(|byte| *byte == b'\n');
    let (head, body) = rest.split_at(end.ok_or(Unusable::Damaged)?);
    let body = &body[1..];
    let mut words = head.split(|byte| *byte == b' ');
    let format = words.next().unwrap_or_default();
    if format != FORMAT {
        let format = String::from_utf8_lossy(format);
        return Err(Unusable::Format(format.chars().take(16).collect()));
    }
    if words.next() != Some(checksum(body).as_bytes()) {
        return Err(Unusable::Damaged);
    }
    Ok(Saved::decode(body)?)
}

/// Writes the file whole or not at all, and only for ourselves to read.
///
/// # Errors
/// What the kernel says; the former file is still there.
pub fn write(path: &Path, saved: &Saved) -> io::Result<()> {
    let body = saved.encode_to_vec();
    let mut head = [MAGIC, FORMAT, b" "].concat();
    head.extend_from_slice(checksum(&body).as_bytes());
    head.push(b'\n');
    if (head.len() + body.len()) as u64 > MAX {
        return Err(io::Error::other(format!(
            "it would have more than {MAX} bytes"
        )));
    }
    let temporary = path.with_extension("tmp");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(&head)?;
    file.write_all(&body)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

/// FNV-1a with 64 bits: against damage, not against malice.
fn checksum(bytes: &[u8]) -> String {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

/// The wall clock, in milliseconds since 1970.
#[must_use]
pub fn now_ms() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since_1970.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn saved() -> Saved {
        Saved {
            written_ms: 2,
            contact_ms: 1,
            destinations: vec![Destination {
                name: "outbound/10.96.0.1:80".to_owned(),
                used_ms: 1,
                absent: true,
            }],
            resources: vec![Resource {
                name: "a".repeat(1000),
                ..Resource::default()
            }],
        }
    }

    #[test]
    fn what_is_written_is_read_and_nobody_else_may_read_it() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("last-good");
        assert!(read(&path).unwrap().is_none());
        for _ in 0..2 {
            write(&path, &saved()).unwrap();
            assert_eq!(read(&path).unwrap(), Some(saved()));
        }
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_is_not_what_was_written_is_never_used() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("last-good");
        write(&path, &saved()).unwrap();
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() {
            assert!(decode(&whole[..length]).is_err(), "cut at {length}");
        }
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x10;
            assert!(decode(&flipped).is_err(), "flipped at {at}");
        }
        assert!(matches!(decode(b"{}"), Err(Unusable::Foreign)));
        let other = [MAGIC, b"2 0123456789abcdef\n"].concat();
        let told = decode(&other).unwrap_err().to_string();
        assert_eq!(told, "has format `2`, and this version reads `1`");
        File::create(&path).unwrap().set_len(MAX + 1).unwrap();
        assert!(matches!(read(&path), Err(Unusable::TooLarge(_))));
        assert!(matches!(read(folder.path()), Err(Unusable::Read(_))));
    }
}
