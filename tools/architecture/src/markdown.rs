//! The parts of a Markdown document that can be compared with something else.

/// The part of a document from one of its headings to the next of the same level.
#[must_use]
pub fn section<'a>(document: &'a str, heading: &str) -> Option<&'a str> {
    let level = heading.split(' ').next().unwrap_or_default();
    let begin = document.find(&format!("\n{heading}\n"))? + 1 + heading.len();
    let end = document[begin..].find(&format!("\n{level} ")).map_or(document.len(), |end| begin + end);
    Some(&document[begin..end])
}

/// The cells of every row of every table, without the heads.
#[must_use]
pub fn rows(document: &str) -> Vec<Vec<&str>> {
    let lines: Vec<&str> = document.lines().collect();
    let is_rule = |line: &&str| line.starts_with("|---");
    let mut rows = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let is_head = lines.get(at + 1).is_some_and(is_rule);
        if let Some(cells) = line.strip_prefix('|').and_then(|line| line.strip_suffix('|'))
            && !is_rule(line)
            && !is_head
        {
            rows.push(cells.split('|').map(str::trim).collect());
        }
    }
    rows
}

/// The names of the anchors of a document, made from its headings as GitHub makes them.
#[must_use]
pub fn anchors(document: &str) -> Vec<String> {
    let headings = document.lines().filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| {
        let kept = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.collect::<String>().replace(' ', "-")
    };
    headings.map(anchor).collect()
}

/// The targets of a document's links. A link's text may run over a line end.
#[must_use]
pub fn links(document: &str) -> Vec<&str> {
    let targets = document.split("](").skip(1);
    targets.filter_map(|rest| rest.split_once(')')).map(|(target, _)| target).collect()
}

/// What a document writes as code: spans between backticks, and the lines of fenced blocks.
#[must_use]
pub fn code(document: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut fenced = false;
    for line in document.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if fenced {
            found.push(line.trim());
        } else {
            found.extend(line.split('`').skip(1).step_by(2));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = "# Title\n\nA [link](a.md#b), [another\none](c.md) and `code`.\n\n## One `x`: two\n\n\
        | head | other |\n|---|---|\n| `a` | |\n| b | c, d |\n\n```sh\n$ make dev  # `not a span`\n```\n\n### Sub\n\n## Two\n\nEnd.\n";

    #[test]
    fn table_rows_exclude_the_head() {
        assert_eq!(rows(DOCUMENT), [["`a`", ""], ["b", "c, d"]]);
    }

    #[test]
    fn a_section_ends_at_the_next_heading_of_its_level() {
        let found = section(DOCUMENT, "## One `x`: two").expect("a section");
        assert!(found.contains("### Sub") && !found.contains("## Two"), "{found}");
        assert_eq!(section(DOCUMENT, "## Three"), None);
    }

    #[test]
    fn links_anchors_and_code_are_found() {
        assert_eq!(links(DOCUMENT), ["a.md#b", "c.md"]);
        assert_eq!(anchors(DOCUMENT), ["title", "one-x-two", "sub", "two"]);
        assert_eq!(code(DOCUMENT), ["code", "x", "a", "$ make dev  # `not a span`"]);
    }
}
