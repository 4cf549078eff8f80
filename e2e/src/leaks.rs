//! Looks through what was written: for values that nobody may see, in whatever form they would
//! slip out, and for alarms.
//!
//! **Invariants**
//! - A value is found raw, in base64 (of the value or of any text around it), in hex and
//!   percent-encoded.
//! - What is said of a finding names the secret and the place, never the value.

use std::{
    collections::{BTreeSet, HashMap},
    hash::{BuildHasher, Hasher, RandomState},
};

use base64::{
    Engine,
    alphabet::{self, Alphabet},
    engine::{GeneralPurpose, general_purpose},
};

/// The table looks at so many bytes at once.
const WORD: usize = 8;
/// Shorter than this a form says nothing: any text has it by chance.
const SHORTEST: usize = 2 * WORD;
/// Characters of a whole line of PEM.
const PEM_LINE: usize = 64;

/// Whether a line of one of our logs tells of a panic, or of what people are asked to report.
#[must_use]
pub fn is_alarm(line: &str) -> bool {
    line.contains("panicked") || line.contains("report this")
}

/// A value, in one form.
struct Needle {
    of: String,
    form: &'static str,
    bytes: Vec<u8>,
}

/// Secrets that are looked for.
#[derive(Default)]
pub struct Secrets {
    needles: Vec<Needle>,
    /// The first [`WORD`] windows of each needle, one of which lies at a multiple of [`WORD`]
    /// wherever the needle does: needle and offset by window.
    windows: HashMap<[u8; WORD], Vec<(usize, usize)>>,
}

impl Secrets {
    /// A new value that stands nowhere else, to be put where a secret is.
    pub fn plant(&mut self, of: &str) -> String {
        let word = |_| format!("{:016x}", RandomState::new().build_hasher().finish());
        let value: String = (0..4).map(word).collect();
        self.add(of, value.as_bytes());
        value
    }

    /// A value of at least 16 bytes, in all forms.
    pub fn add(&mut self, of: &str, value: &[u8]) {
        let mut forms = vec![
            ("raw", value.to_vec()),
            ("hex", hex(value, false)),
            ("hex", hex(value, true)),
            ("percent-encoded", percent_encoded(value)),
        ];
        for alphabet in [alphabet::STANDARD, alphabet::URL_SAFE] {
            forms.extend((0..3).map(|shift| ("base64", base64_within(value, shift, &alphabet))));
        }
        let mut known = BTreeSet::new();
        for (form, bytes) in forms {
            if bytes.len() >= SHORTEST && known.insert(bytes.clone()) {
                self.put(of, form, bytes);
            }
        }
    }

    /// A private key: its DER, and each line of its PEM, one of which is half of it. The last
    /// line, which is shorter, tells of a short key only what is public.
    ///
    /// # Errors
    /// It is no PEM.
    pub fn add_key(&mut self, of: &str, pem: &str) -> anyhow::Result<()> {
        let lines = || pem.lines().filter(|line| !line.starts_with("-----"));
        let body: String = lines().collect();
        let der = general_purpose::STANDARD.decode(body)?;
        anyhow::ensure!(der.len() >= SHORTEST, "{of} is no PEM");
        self.add(of, &der);
        for line in lines().filter(|line| line.len() == PEM_LINE) {
            self.add(of, line.as_bytes());
        }
        Ok(())
    }

    /// A token: its signature, without which it is worth nothing.
    pub fn add_token(&mut self, of: &str, token: &str) {
        let signature = token.trim().rsplit('.').next().unwrap_or_default();
        self.add(of, signature.as_bytes());
    }

    /// How many forms are looked for.
    #[must_use]
    pub fn forms(&self) -> usize {
        self.needles.len()
    }

    /// What a text shows: a sentence each.
    #[must_use]
    pub fn shown_by(&self, place: &str, text: &[u8]) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for (word, start) in text.chunks_exact(WORD).zip((0..).step_by(WORD)) {
            let Some(windows) = self.windows.get(word) else {
                continue;
            };
            for (number, offset) in windows {
                let needle = &self.needles[*number];
                let begins = usize::checked_sub(start, *offset);
                let tail = begins.and_then(|begin| text.get(begin..));
                if tail.is_some_and(|tail| tail.starts_with(&needle.bytes)) {
                    found.insert(format!("{place} shows {} ({})", needle.of, needle.form));
                }
            }
        }
        found
    }

    fn put(&mut self, of: &str, form: &'static str, bytes: Vec<u8>) {
        let number = self.needles.len();
        for offset in 0..WORD {
            let mut window = [0; WORD];
            window.copy_from_slice(&bytes[offset..offset + WORD]);
            self.windows
                .entry(window)
                .or_default()
                .push((number, offset));
        }
        self.needles.push(Needle {
            of: of.to_owned(),
            form,
            bytes,
        });
    }
}

/// The characters of a text's base64 that the value alone decides, where it begins `shift` bytes
/// after a multiple of three.
fn base64_within(value: &[u8], shift: usize, alphabet: &Alphabet) -> Vec<u8> {
    let engine = GeneralPurpose::new(alphabet, general_purpose::NO_PAD);
    let padded = [&vec![0; shift], value].concat();
    let text = engine.encode(&padded).into_bytes();
    let (first, last) = ((shift * 8).div_ceil(6), padded.len() * 8 / 6);
    text[first..last].to_vec()
}

fn hex(value: &[u8], upper: bool) -> Vec<u8> {
    let digit = |byte: &u8| {
        if upper {
            format!("{byte:02X}")
        } else {
            format!("{byte:02x}")
        }
    };
    value.iter().map(digit).collect::<String>().into_bytes()
}

fn percent_encoded(value: &[u8]) -> Vec<u8> {
    let encoded = |byte: &u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(*byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    value.iter().map(encoded).collect::<String>().into_bytes()
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

    use super::*;

    const VALUE: &[u8] = b"c2Vjcmv0/+planted=by&the test";

    /// The value in a text, at every place that a table of words could miss.
    fn finds(secrets: &Secrets, shown: &[u8], form: &str) {
        for before in 0..17 {
            let text = [&vec![b'.'; before], shown, b" and more"].concat();
            let found: Vec<_> = secrets.shown_by("a log", &text).into_iter().collect();
            assert_eq!(
                found,
                [format!("a log shows planted ({form})")],
                "after {before} bytes"
            );
        }
    }

    #[test]
    fn a_planted_value_is_found_in_every_form_and_place() {
        let mut secrets = Secrets::default();
        secrets.add("planted", VALUE);
        finds(&secrets, VALUE, "raw");
        let hex: String = VALUE.iter().map(|byte| format!("{byte:02x}")).collect();
        finds(&secrets, hex.as_bytes(), "hex");
        finds(&secrets, hex.to_uppercase().as_bytes(), "hex");
        let url = b"c2Vjcmv0%2F%2Bplanted%3Dby%26the%20test";
        finds(&secrets, url, "percent-encoded");
        for around in ["", "u", "us", "user:"] {
            let text = [around.as_bytes(), VALUE, b"!"].concat();
            finds(&secrets, STANDARD.encode(&text).as_bytes(), "base64");
            finds(&secrets, URL_SAFE_NO_PAD.encode(&text).as_bytes(), "base64");
        }
    }

    #[test]
    fn nothing_is_found_where_nothing_is_and_a_finding_does_not_tell_the_value() {
        let mut secrets = Secrets::default();
        secrets.add("planted", VALUE);
        secrets.add("too short", b"short");
        let all_but_one = &VALUE[..VALUE.len() - 1];
        assert!(secrets.shown_by("a log", all_but_one).is_empty());
        assert!(secrets.shown_by("a log", b"too short: short").is_empty());
        let told = secrets
            .shown_by("a log", VALUE)
            .pop_first()
            .unwrap_or_default();
        assert!(!told.contains("planted=by"), "{told}");
    }

    #[test]
    fn a_key_is_found_whole_or_by_a_line_of_it_and_its_certificate_is_none() {
        let key = rcgen::generate_simple_self_signed(["a".to_owned()]).expect("a key");
        let pem = key.signing_key.serialize_pem();
        let mut secrets = Secrets::default();
        secrets.add_key("key", &pem).expect("a PEM");
        let line = pem.lines().nth(2).expect("three lines");
        for shown in [
            pem.as_bytes(),
            line.as_bytes(),
            STANDARD.encode(&pem).as_bytes(),
            STANDARD.encode(key.signing_key.serialize_der()).as_bytes(),
            &key.signing_key.serialize_der(),
        ] {
            assert!(!secrets.shown_by("a log", shown).is_empty());
        }
        for public in [
            key.cert.pem().as_bytes(),
            STANDARD.encode(key.cert.pem()).as_bytes(),
        ] {
            assert!(secrets.shown_by("a log", public).is_empty());
        }
        assert!(secrets.add_key("none", "a text").is_err());
    }

    #[test]
    fn a_token_is_known_by_its_signature() {
        let mut secrets = Secrets::default();
        secrets.add_token("token", "header.claims.c2lnbmF0dXJlIG9mIGl0\n");
        assert!(secrets.shown_by("a log", b"header.claims.none").is_empty());
        assert!(
            !secrets
                .shown_by("a log", b"Bearer header.claims.c2lnbmF0dXJlIG9mIGl0")
                .is_empty()
        );
    }
}
