//! Rules about the pages that people read.

use super::Fault;
use crate::house::House;

/// What the README shows first: the main job, and the tests.
const FIRST: &[&str] = &["cargo run --release -- tour", "cargo xtask test"];

/// The README's first code block holds the two commands, one a line, and nothing else.
pub(super) fn first_commands(house: &House) -> Vec<Fault> {
    let Some(readme) = house.file("README.md") else {
        return vec![Fault::at("README.md", 0, "is missing")];
    };
    let mut lines = readme.text.lines().enumerate();
    let start = lines.find(|(_, line)| line.starts_with("```")).map_or(0, |(index, _)| index + 1);
    let block = lines.map(|(_, line)| line).take_while(|line| !line.starts_with("```"));
    if block.eq(FIRST.iter().copied()) {
        return Vec::new();
    }
    let text = format!("the first code block must be exactly: {}", FIRST.join(" | "));
    vec![Fault::at("README.md", start, text)]
}

/// A link to a file of the project leads there.
pub(super) fn links(house: &House) -> Vec<Fault> {
    let mut faults = Vec::new();
    for page in house.files.iter().filter(|file| file.path.ends_with(".md")) {
        let folder = page.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for (index, line) in page.text.lines().enumerate() {
            let targets = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
            for target in targets.filter(|target| !target.contains("://")) {
                let file = target.split('#').next().unwrap_or("").trim_end_matches('/');
                if !file.is_empty() && !exists(house, folder, file) {
                    let text = format!("{target} is not there; mend the link");
                    faults.push(Fault::at(&page.path, index + 1, text));
                }
            }
        }
    }
    faults
}

/// Whether a file, or a folder with files, is at a path seen from a folder.
fn exists(house: &House, folder: &str, path: &str) -> bool {
    let mut parts: Vec<_> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let path = parts.join("/");
    let below = format!("{path}/");
    let is_there = |other: &str| other == path || other.starts_with(&below);
    house.root.join(&path).exists() || house.files.iter().any(|file| is_there(&file.path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_first_block_is_found() {
        let good = "# x\n\n```\ncargo run --release -- tour\ncargo xtask test\n```\n```\ny\n```\n";
        let faults = |text: &str| first_commands(&House::of(&[("README.md", text)])).len();
        assert_eq!(faults(good), 0);
        assert_eq!(faults(&good.replace("cargo xtask test\n", "")), 1);
        assert_eq!(faults(&good.replace("# x\n", "```\nls\n```\n")), 1);
    }

    #[test]
    fn a_link_to_nowhere_is_found() {
        let page = "[a](b.md#c) [d](../e/) [f](https://g.example/h) [i](#j)\n[k](gone.md)\n";
        let house = House::of(&[("docs/x.md", page), ("docs/b.md", ""), ("e/f.rs", "")]);
        let faults = links(&house);
        assert_eq!((faults.len(), faults[0].line), (1, 2));
    }
}
