//! The metrics and labels that a PromQL expression asks for, as far as alert rules and
//! dashboards need it: names, matchers in braces, and the labels of `by`, `on` and the like.

/// `label op "value"`; the value is taken apart at `|` where it is a regular expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Matcher {
    pub(crate) label: String,
    pub(crate) values: Vec<String>,
}

/// What one expression asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) metrics: Vec<(String, Vec<Matcher>)>,
    /// Of `by (…)`, `on (…)`, `without`, `ignoring`, `group_left`, `group_right`.
    pub(crate) labels: Vec<String>,
    /// Words that are neither: functions, operators.
    pub(crate) words: Vec<String>,
}

const GROUPING: [&str; 6] = [
    "by",
    "on",
    "without",
    "ignoring",
    "group_left",
    "group_right",
];

/// Reads an expression; a panic says what is odd about it.
pub(crate) fn read(expression: &str) -> Asked {
    let mut asked = Asked::default();
    let mut rest = expression;
    while let Some(c) = rest.chars().next() {
        if c == '"' {
            rest = string(rest).1;
        } else if c == '[' {
            rest = &rest[rest.find(']').expect("a range ends")..];
        } else if c.is_ascii_alphabetic() || c == '_' {
            rest = word(rest, &mut asked);
        } else {
            assert!(c != '{', "a selector without a name: {expression}");
            rest = &rest[c.len_utf8()..];
            let in_number = c.is_ascii_digit();
            while in_number && rest.starts_with(|c: char| c.is_ascii_alphanumeric()) {
                rest = &rest[1..]; // 15m, 1e3
            }
        }
    }
    asked
}

fn word<'a>(text: &'a str, asked: &mut Asked) -> &'a str {
    let (name, rest) = identifier(text);
    let after = rest.trim_start();
    if GROUPING.contains(&name) && after.starts_with('(') {
        let (list, rest) = after[1..].split_once(')').expect("a list ends");
        let labels = list.split(',').map(|label| label.trim().to_owned());
        asked.labels.extend(labels);
        rest
    } else if name.starts_with("anycast_") || after.starts_with('{') {
        let (matchers, rest) = match after.strip_prefix('{') {
            Some(inside) => matchers(inside),
            None => (Vec::new(), rest),
        };
        asked.metrics.push((name.to_owned(), matchers));
        rest
    } else {
        asked.words.push(name.to_owned());
        rest
    }
}

fn matchers(mut text: &str) -> (Vec<Matcher>, &str) {
    let mut all = Vec::new();
    loop {
        text = text.trim_start_matches([' ', ',']);
        if let Some(rest) = text.strip_prefix('}') {
            return (all, rest);
        }
        let (label, rest) = identifier(text);
        let operator: String = rest.chars().take_while(|c| "=!~".contains(*c)).collect();
        let (value, rest) = string(&rest[operator.len()..]);
        let values = match operator.as_str() {
            "=~" | "!~" => value.split('|').map(ToOwned::to_owned).collect(),
            "=" | "!=" => vec![value.to_owned()],
            other => panic!("no operator: {other:?} before {text}"),
        };
        all.push(Matcher {
            label: label.to_owned(),
            values,
        });
        text = rest;
    }
}

fn identifier(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
    let (name, rest) = text.split_at(end.unwrap_or(text.len()));
    assert!(!name.is_empty(), "a name is missing before {text}");
    (name, rest)
}

/// A string without escapes, and what comes after it.
fn string(text: &str) -> (&str, &str) {
    let (value, rest) = text
        .strip_prefix('"')
        .and_then(|text| text.split_once('"'))
        .expect("a string in double quotes");
    assert!(!value.contains('\\'), "no escapes are read: {value}");
    (value, rest)
}

#[test]
fn names_matchers_and_lists_are_told_apart() {
    let asked = read(
        r#"sum by (instance, why) (increase(anycast_a_total{x="1", y=~"b|c"}[15m])) > 3e2 and on(z) up{job="q"} or anycast_b"#,
    );
    let matcher = |label: &str, values: &[&str]| Matcher {
        label: label.to_owned(),
        values: values.iter().map(ToString::to_string).collect(),
    };
    assert_eq!(
        asked.metrics,
        [
            (
                "anycast_a_total".to_owned(),
                vec![matcher("x", &["1"]), matcher("y", &["b", "c"])]
            ),
            ("up".to_owned(), vec![matcher("job", &["q"])]),
            ("anycast_b".to_owned(), vec![]),
        ]
    );
    assert_eq!(asked.labels, ["instance", "why", "z"]);
    assert_eq!(asked.words, ["sum", "increase", "and", "or"]);
}
