//! A terminal's output as a picture: `script` captures it, this draws it.
//!
//! It reads lines of text with SGR sequences (ECMA-48), of which it knows those that
//! `anycastctl` writes; what else it finds it refuses, so that no picture is wrong in silence.

use std::fmt::Write;

use crate::run::Failure;

const CELL: (f64, f64) = (8.43, 19.0);
const MARGIN: f64 = 18.0;
const TOP: f64 = 44.0;
const FONT: &str = "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace";

/// Draws a capture; `title` is what was typed.
pub(crate) fn draw(title: &str, capture: &str) -> Result<String, Failure> {
    let lines: Vec<_> = capture.lines().collect();
    let mut body = String::new();
    let (mut columns, mut y) = (title.chars().count() + 14, TOP);
    for line in &lines {
        y += CELL.1;
        let mut column = 0;
        for (style, text) in runs(line.trim_end_matches('\r'))? {
            let length = text.chars().count();
            if !text.trim().is_empty() {
                body += &run(column, y, style, text);
            }
            column += length;
        }
        columns = columns.max(column);
    }
    let width = MARGIN * 2.0 + CELL.0 * f64::from(u32::try_from(columns).unwrap_or(u32::MAX));
    let height = y + MARGIN;
    let mut svg = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0}" height="{height:.0}" viewBox="0 0 {width:.0} {height:.0}" font-family="{FONT}" font-size="14">
<title>{}</title>
<rect width="100%" height="100%" rx="9" fill="#1b1f27"/>
<circle cx="20" cy="20" r="6" fill="#ec6a5e"/><circle cx="40" cy="20" r="6" fill="#f4bf4f"/><circle cx="60" cy="20" r="6" fill="#61c554"/>
<text x="82" y="25" fill="#8b93a1">$ {}</text>
"##,
        escape(title),
        escape(title)
    );
    svg += &body;
    svg += "</svg>\n";
    Ok(svg)
}

fn run(column: usize, y: f64, style: &str, text: &str) -> String {
    let start = text.len() - text.trim_start().len();
    let at = |chars: usize| f64::from(u32::try_from(chars).unwrap_or(u32::MAX)) * CELL.0;
    let x = MARGIN + at(column + text[..start].chars().count());
    let text = text.trim();
    let length = at(text.chars().count());
    let mut element = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(
        element,
        r#"<text x="{x:.1}" y="{y:.0}" {style} textLength="{length:.1}" xml:space="preserve">{}</text>"#,
        escape(text)
    );
    element
}

/// The pieces of one line, each with its look.
fn runs(line: &str) -> Result<Vec<(&'static str, &str)>, Failure> {
    let mut look = look("0")?;
    let mut runs = Vec::new();
    let mut parts = line.split('\x1b');
    runs.push((look, parts.next().unwrap_or_default()));
    for part in parts {
        let sequence = part.strip_prefix('[').and_then(|part| part.split_once('m'));
        let (sgr, text) = sequence
            .filter(|(sgr, _)| sgr.bytes().all(|b| b.is_ascii_digit() || b == b';'))
            .ok_or_else(|| Failure::new(format!("no SGR sequence: ESC {part:?}")))?;
        look = self::look(sgr)?;
        runs.push((look, text));
    }
    Ok(runs)
}

fn look(sgr: &str) -> Result<&'static str, Failure> {
    Ok(match sgr {
        "0" | "" => r##"fill="#d7dce4""##,
        "1" => r##"fill="#ffffff" font-weight="bold""##,
        "2" => r##"fill="#8b93a1""##,
        "32" => r##"fill="#7ccf7c""##,
        "33" => r##"fill="#e8b84b""##,
        "1;31" => r##"fill="#ff7b72" font-weight="bold""##,
        other => return Err(Failure::new(format!("no colour is known for SGR {other}"))),
    })
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_keeps_its_place_and_its_colour() {
        let svg = draw("x <y>", "a \x1b[32mup\x1b[0m  b & c\r\n\r\nlast\r\n").unwrap();
        assert!(svg.contains("$ x &lt;y&gt;</text>"), "{svg}");
        let up = format!(r#"x="{:.1}""#, MARGIN + 2.0 * CELL.0);
        let line = svg.lines().find(|line| line.contains(">up<")).unwrap();
        assert!(line.contains(&up) && line.contains("#7ccf7c"), "{line}");
        assert!(svg.contains(">b &amp; c<"), "{svg}");
        let last = format!(r#"y="{:.0}""#, TOP + 3.0 * CELL.1);
        assert!(
            svg.lines()
                .any(|line| line.contains(&last) && line.contains(">last<"))
        );
    }

    #[test]
    fn what_cannot_be_drawn_is_refused() {
        for capture in ["\x1b[2J", "\x1b]0;title", "\x1b[35mviolet"] {
            assert!(draw("", capture).is_err(), "{capture:?}");
        }
    }
}
