//! A strict reader of OpenMetrics text, version 1.0: it takes what the specification allows
//! and nothing else, of the types that are served here (gauge, counter, info).

use std::collections::{BTreeMap, BTreeSet};

/// One sample: its name, its labels and its value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

#[derive(Debug, Default)]
struct Family {
    name: String,
    kind: Option<String>,
    help: bool,
    unit: Option<String>,
    samples: bool,
}

/// The samples of a page, or what is wrong with it.
pub(crate) fn read(page: &str) -> Result<Vec<Sample>, String> {
    let body = page
        .strip_suffix("# EOF\n")
        .ok_or("it does not end with # EOF")?;
    let mut families: BTreeSet<String> = BTreeSet::new();
    let mut family = Family::default();
    let mut samples: Vec<Sample> = Vec::new();
    for line in body.split_terminator('\n') {
        let at = |why: &str| format!("{why}: {line:?}");
        if let Some(metadata) = line.strip_prefix("# ") {
            let (word, rest) = metadata.split_once(' ').ok_or_else(|| at("no metadata"))?;
            let (name, text) = rest.split_once(' ').ok_or_else(|| at("no text"))?;
            if name != family.name {
                if !is_name(name) || !families.insert(name.to_owned()) {
                    return Err(at("a family's name is bad or comes twice"));
                }
                family = Family {
                    name: name.to_owned(),
                    ..Family::default()
                };
            }
            family.describe(word, text).map_err(|why| at(&why))?;
        } else {
            let sample = sample(line).map_err(|why| at(&why))?;
            family.check(&sample).map_err(|why| at(&why))?;
            family.samples = true;
            let same = |other: &Sample| other.name == sample.name && other.labels == sample.labels;
            if samples.iter().any(same) {
                return Err(at("the sample comes twice"));
            }
            samples.push(sample);
        }
    }
    Ok(samples)
}

impl Family {
    fn describe(&mut self, word: &str, text: &str) -> Result<(), String> {
        if self.samples {
            return Err("metadata after samples".into());
        }
        let fresh = match word {
            "HELP" => !std::mem::replace(&mut self.help, true),
            "TYPE" if ["gauge", "counter", "info"].contains(&text) => {
                self.kind.replace(text.to_owned()).is_none()
            }
            "UNIT" => {
                if !self.name.ends_with(&format!("_{text}")) {
                    return Err("the unit is not the end of the name".into());
                }
                self.unit.replace(text.to_owned()).is_none()
            }
            _ => return Err("unknown metadata or type".into()),
        };
        if text.is_empty() || text.contains(['\\', '\r']) {
            return Err("empty or badly escaped".into());
        }
        fresh.then_some(()).ok_or_else(|| "said twice".into())
    }

    fn check(&self, sample: &Sample) -> Result<(), String> {
        let suffix = match self.kind.as_deref() {
            Some("gauge") => "",
            Some("counter") => "_total",
            Some("info") => "_info",
            _ => return Err("a sample without a type".into()),
        };
        if sample.name != format!("{}{suffix}", self.name) {
            return Err(format!("not of the family {}", self.name));
        }
        let possible = match suffix {
            "_total" => sample.value >= 0.0 && sample.value.is_finite(),
            "_info" => sample.value == 1.0,
            _ => sample.value.is_finite(),
        };
        possible
            .then_some(())
            .ok_or_else(|| "impossible value".into())
    }
}

fn is_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !["_total", "_info", "_created", "_bucket", "_sum", "_count"]
            .iter()
            .any(|reserved| name.ends_with(reserved))
}

fn sample(line: &str) -> Result<Sample, String> {
    let end = line.find(['{', ' ']).ok_or("no value")?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, after) = rest.split_once("=\"").ok_or("no label")?;
            let good = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if label.is_empty()
                || !label.chars().all(good)
                || label.starts_with(|c: char| c.is_ascii_digit())
            {
                return Err(format!("bad label {label:?}"));
            }
            let (value, after) = quoted(after)?;
            if labels.insert(label.to_owned(), value).is_some() {
                return Err(format!("{label} comes twice"));
            }
            if let Some(after) = after.strip_prefix('}') {
                rest = after;
                break;
            }
            rest = after.strip_prefix(',').ok_or("no comma between labels")?;
        }
    }
    let number = rest.strip_prefix(' ').ok_or("no space before the value")?;
    let digits = |c: char| c.is_ascii_digit() || "+-.eE".contains(c);
    if number.is_empty() || !number.chars().all(digits) {
        return Err(format!("{number:?} is no number"));
    }
    Ok(Sample {
        name: name.to_owned(),
        labels,
        value: number.parse().map_err(|_| "no number")?,
    })
}

/// A label's value up to its closing quote, and what follows.
fn quoted(text: &str) -> Result<(String, &str), String> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => match chars.next() {
                Some((_, '\\')) => value.push('\\'),
                Some((_, '"')) => value.push('"'),
                Some((_, 'n')) => value.push('\n'),
                _ => return Err("bad escape".into()),
            },
            c if c.is_control() => return Err("a control character".into()),
            c => value.push(c),
        }
    }
    Err("no closing quote".into())
}

#[test]
fn the_reader_is_strict() {
    let good = "# HELP a_seconds Help.\n# TYPE a_seconds gauge\n# UNIT a_seconds seconds\n\
                a_seconds{x=\"q\\\"\\\\\\n\"} 1.5\n\
                # TYPE c counter\nc_total 7\n# TYPE i info\ni_info{v=\"1\"} 1\n# EOF\n";
    let samples = read(good).unwrap();
    assert_eq!(samples.len(), 3);
    assert_eq!(samples[0].labels["x"], "q\"\\\n");
    for bad in [
        "",
        "# TYPE a gauge\na 1\n",
        "a 1\n# EOF\n",
        "# TYPE a gauge\na 1\n# EOF",
        "# TYPE a gauge\na 1\n\n# EOF\n",
        "# TYPE a gauge\na NaN\n# EOF\n",
        "# TYPE a gauge\na 1\na 1\n# EOF\n",
        "# TYPE a gauge\na{x=\"1\"} 1\na{x=\"1\"} 2\n# EOF\n",
        "# TYPE a gauge\nb 1\n# EOF\n",
        "# TYPE a counter\na 1\n# EOF\n",
        "# TYPE a counter\na_total -1\n# EOF\n",
        "# TYPE a info\na_info 0\n# EOF\n",
        "# TYPE a_total counter\na_total_total 1\n# EOF\n",
        "# TYPE a gauge\n# TYPE a gauge\n# EOF\n",
        "# TYPE a gauge\na 1\n# HELP a later\n# EOF\n",
        "# TYPE a gauge\na 1\n# TYPE b gauge\nb 1\n# TYPE a gauge\n# EOF\n",
        "# TYPE a gauge\n# UNIT a seconds\na 1\n# EOF\n",
        "# TYPE a gauge\na{x=1} 1\n# EOF\n",
        "# TYPE a gauge\na{x=\"1\" y=\"2\"} 1\n# EOF\n",
        "# TYPE a gauge\na{x=\"1} 1\n# EOF\n",
        "# TYPE a gauge\na  1\n# EOF\n",
        "# TYPE a banana\n# EOF\n",
    ] {
        assert!(read(bad).is_err(), "{bad}");
    }
}
