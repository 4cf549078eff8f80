//! Documents with tables that a command writes.

use std::{fs, path::Path};

use anyhow::{Context, Result};

/// Writes tables into a document, each between its marks, of which the first says
/// `<!-- NAME: written by` and the last `<!-- end of NAME -->`.
///
/// # Errors
/// It cannot be read or written, or has no place for one of them.
pub(crate) fn write(path: &Path, tables: &[(&str, String)]) -> Result<()> {
    let shown = path.display();
    let mut text = fs::read_to_string(path).with_context(|| format!("cannot read {shown}"))?;
    for (name, table) in tables {
        text = with_table(&text, name, table)
            .with_context(|| format!("{shown} has no place for the table `{name}`"))?;
    }
    fs::write(path, text).with_context(|| format!("cannot write {shown}"))
}

fn with_table(text: &str, name: &str, table: &str) -> Option<String> {
    let begin = text.find(&format!("<!-- {name}: written by"))?;
    let begin = begin + text[begin..].find("-->\n")? + "-->\n".len();
    let end = begin + text[begin..].find(&format!("<!-- end of {name} -->"))?;
    let (before, after) = (&text[..begin], &text[end..]);
    Some(format!("{before}\n{}\n\n{after}", table.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_between_the_marks_is_written_anew() {
        let marked = |table| {
            format!("before\n<!-- rows: written by `x` -->\n{table}<!-- end of rows -->\nafter\n")
        };
        let written = with_table(&marked("old\n"), "rows", "new\n");
        assert_eq!(written, Some(marked("\nnew\n\n")));
        let again = with_table(&written.unwrap_or_default(), "rows", "newer\n");
        assert_eq!(again, Some(marked("\nnewer\n\n")));
        assert_eq!(with_table("no marks", "rows", "new"), None);
    }
}
