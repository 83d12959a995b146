//! The files that the rules look at: read once, with Rust's comments and strings told from code.
//!
//! This is no parser. It knows where a comment, a string and a character begin and end, which is
//! what searching for words in code needs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Everything in the workspace that people wrote.
#[derive(Debug, Default)]
pub struct House {
    /// Where it lies; empty for one made of samples.
    pub root: PathBuf,
    /// The files, in the order of their paths.
    pub files: Vec<File>,
}

/// One text file.
#[derive(Debug)]
pub struct File {
    /// Its path from the root, with slashes.
    pub path: String,
    /// What stands in it.
    pub text: String,
    /// For Rust: the same lines with comments and the insides of strings blanked; else empty.
    pub code: String,
}

/// Folders that hold nothing that people wrote by hand.
const PASSED_OVER: &[&str] = &["target", ".git", "corpus", "artifacts", "proptest-regressions"];

/// What counts as text, by the ends of names.
const TEXTS: &[&str] = &[".rs", ".md", ".toml", ".txt", ".py", ".sh", ".c", ".h", ".ci/run"];

impl House {
    /// Reads what lies below a folder.
    ///
    /// # Errors
    /// Where a file can't be read or is no UTF-8.
    pub fn at(root: &Path) -> io::Result<House> {
        let root = root.canonicalize()?;
        let mut files = Vec::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder)? {
                let entry = entry?;
                let name = entry.file_name();
                let path = entry.path();
                let inside = path.strip_prefix(&root).unwrap_or(&path).display().to_string();
                if entry.file_type()?.is_dir() {
                    if !PASSED_OVER.iter().any(|passed| name == *passed) {
                        folders.push(path);
                    }
                } else if TEXTS.iter().any(|end| inside.ends_with(end)) {
                    files.push(File::new(inside, fs::read_to_string(&path)?));
                }
            }
        }
        files.sort_by(|one, two| one.path.cmp(&two.path));
        Ok(House { root, files })
    }

    /// A house of samples, for tests of the rules.
    #[must_use]
    pub fn of(samples: &[(&str, &str)]) -> House {
        let files = samples.iter().map(|(path, text)| File::new((*path).into(), (*text).into()));
        House { root: PathBuf::new(), files: files.collect() }
    }

    /// The file at a path.
    #[must_use]
    pub fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    /// The Rust files below a folder.
    pub fn rust(&self, folder: &str) -> impl Iterator<Item = &File> {
        self.files
            .iter()
            .filter(move |file| file.path.starts_with(folder) && file.path.ends_with(".rs"))
    }
}

impl File {
    /// A file with this text.
    #[must_use]
    pub fn new(path: String, text: String) -> File {
        let code = if path.ends_with(".rs") { blank(&text) } else { String::new() };
        File { path, text, code }
    }
}

/// Rust source with everything but the code blanked; lines stay where they are.
#[must_use]
pub fn blank(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let not_code = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if starts_word(&code) && raw_string(rest).is_some() {
            raw_string(rest).unwrap_or(0)
        } else if first == '"' {
            quoted(rest, '"')
        } else if first == '\'' && is_character(rest) {
            quoted(rest, '\'')
        } else {
            code.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        };
        code.extend(rest[..not_code].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        rest = &rest[not_code..];
    }
    code
}

fn starts_word(before: &str) -> bool {
    !before.ends_with(|c: char| c.is_alphanumeric() || c == '_')
}

/// Comments nest.
fn block_comment(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

/// The length of a raw string that begins here: `r"…"`, `r#"…"#`, `br"…"`, `cr"…"`.
fn raw_string(text: &str) -> Option<usize> {
    let after = ["r", "br", "cr"].iter().find_map(|prefix| {
        let after = text.strip_prefix(prefix)?;
        after.starts_with(['"', '#']).then_some(after)
    })?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    let inside = after[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let length = inside.find(&end).map_or(inside.len(), |found| found + end.len());
    Some(text.len() - inside.len() + length)
}

/// The length of a quoted thing with backslashes in it.
fn quoted(text: &str, mark: char) -> usize {
    let mut is_escaped = false;
    for (index, letter) in text.char_indices().skip(1) {
        match letter {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            _ if letter == mark => return index + 1,
            _ => {}
        }
    }
    text.len()
}

/// A character, not a lifetime.
fn is_character(text: &str) -> bool {
    let mut letters = text.chars().skip(1);
    match letters.next() {
        Some('\\') => true,
        Some(_) => letters.next() == Some('\''),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_is_left() {
        let text = r##"a("s\"x") // c
/* one /* two */ */ b<'l>('"', '\'', r#"raw " "#, br"w", bar"z")"##;
        let code = blank(text);
        assert_eq!(code.lines().count(), 2);
        let squeezed: String = code.chars().filter(|c| !c.is_whitespace()).collect();
        assert_eq!(squeezed, "a()b<'l>(,,,,bar)");
    }
}
