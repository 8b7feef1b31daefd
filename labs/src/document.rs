//! Documents with tables that labs measure: sections that a lab replaces among what people write.

/// The text with this section in the place of the one that begins with its heading and reaches to
/// the next heading of the second level; at its end, where there is none.
#[must_use]
pub fn replaced(text: &str, heading: &str, section: &str) -> String {
    let Some(begin) = text.find(heading) else {
        return format!("{}\n\n{section}", text.trim_end());
    };
    let rest = &text[begin + heading.len()..];
    let after = rest.find("\n## ").map_or("", |end| &rest[end..]);
    [&text[..begin], section, after].concat()
}

/// The cells of every row in the section below this heading, the line below the first row left out.
#[must_use]
pub fn rows(text: &str, heading: &str) -> Vec<Vec<String>> {
    let Some((_, rest)) = text.split_once(heading) else {
        return Vec::new();
    };
    let section = rest.split("\n## ").next().unwrap_or_default();
    let cells = |line: &str| {
        let line = line.trim().trim_matches('|');
        line.split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    section
        .lines()
        .filter(|line| line.starts_with('|') && !line.starts_with("|-"))
        .map(cells)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_replaced_and_all_else_stays() {
        let text = "# T\n\nwords\n\n## A\nold\n\n## B\nother\n";
        let new = "## A\n| x | y |\n|---|---|\n| 1 | 2 |\n";
        let whole = replaced(text, "## A", new);
        assert_eq!(whole, format!("# T\n\nwords\n\n{new}\n## B\nother\n"));
        assert_eq!(rows(&whole, "## A"), [["x", "y"], ["1", "2"]]);
        assert_eq!(rows(&whole, "## C"), [[""; 0]; 0]);
        assert_eq!(replaced("# T\n", "## A", new), format!("# T\n\n{new}"));
    }
}
