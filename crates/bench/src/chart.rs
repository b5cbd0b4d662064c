//! A chart as an image: panels of bars, as SVG, without fonts or colours that a page may not have.

use std::fmt::Write;

/// One bar.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// What it stands for.
    pub name: String,
    /// How long it is, in the panel's unit; `None` if there is nothing to show.
    pub value: Option<f64>,
}

/// Bars that share a scale.
#[derive(Clone, Debug, PartialEq)]
pub struct Panel {
    /// What is shown, and in which unit.
    pub title: String,
    /// The bars, from above.
    pub bars: Vec<Bar>,
    /// What a bar of full length stands for; `None` for the longest of them.
    pub full: Option<f64>,
}

const WIDTH: f64 = 720.0;
const MARGIN: f64 = 16.0;
/// Where bars begin.
const BARS_AT: f64 = 220.0;
/// What the number behind the longest bar takes.
const NUMBER_ROOM: f64 = 80.0;
const TITLE_HEIGHT: f64 = 30.0;
const BAR_HEIGHT: f64 = 24.0;
/// Seen well on white and on black.
const COLOURS: [&str; 4] = ["#7a8699", "#4c78a8", "#2a9d8f", "#e07a3f"];

/// A number as people read it; a part of something whole to a tenth, so that little is not nothing.
fn said(value: f64, is_part: bool) -> String {
    match value {
        value if is_part => format!("{value:.1}").trim_end_matches(".0").to_owned(),
        value if value < 10.0 => format!("{value:.1}"),
        value => format!("{value:.0}"),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The chart under `title`, with `note` below.
pub fn chart(title: &str, panels: &[Panel], note: &str) -> String {
    let rows: usize = panels.iter().map(|panel| panel.bars.len()).sum();
    let height = 2.0 * MARGIN + 50.0 + panels.len() as f64 * (TITLE_HEIGHT + 10.0) + rows as f64 * BAR_HEIGHT;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    let mut y = MARGIN + 14.0;
    let text = |out: &mut String, x: f64, y: f64, style: &str, words: &str| {
        // Writing into a string cannot fail.
        let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" fill=\"#1b1f24\"{style}>{}</text>", escaped(words));
    };
    text(&mut out, MARGIN, y, " font-size=\"16\" font-weight=\"bold\"", title);
    for panel in panels {
        y += TITLE_HEIGHT;
        text(&mut out, MARGIN, y, " font-weight=\"bold\"", &panel.title);
        y += 10.0;
        let longest = panel.bars.iter().filter_map(|bar| bar.value).fold(f64::MIN_POSITIVE, f64::max);
        let longest = panel.full.map_or(longest, |full| full.max(longest));
        for (n, bar) in panel.bars.iter().enumerate() {
            text(&mut out, MARGIN, y + 16.0, "", &bar.name);
            let room = WIDTH - BARS_AT - NUMBER_ROOM - MARGIN;
            let width = bar.value.map_or(0.0, |value| room * value / longest);
            let colour = COLOURS[n % COLOURS.len()];
            let _ = writeln!(
                out,
                "<rect x=\"{BARS_AT}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{:.1}\" fill=\"{colour}\"/>",
                BAR_HEIGHT - 6.0
            );
            let number =
                bar.value.map_or_else(|| "not spoken here".to_owned(), |value| said(value, panel.full.is_some()));
            text(&mut out, BARS_AT + width + 6.0, y + 14.0, "", &number);
            y += BAR_HEIGHT;
        }
    }
    text(&mut out, MARGIN, y + 24.0, " font-size=\"11\"", note);
    out.push_str("</svg>\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panel(values: &[Option<f64>]) -> Panel {
        let bar = |(n, value): (usize, &Option<f64>)| Bar { name: format!("way {n} <&>"), value: *value };
        Panel { title: "ms".to_owned(), bars: values.iter().enumerate().map(bar).collect(), full: None }
    }

    /// The widths of the bars.
    fn widths(svg: &str) -> Vec<f64> {
        let bars = svg.lines().filter(|line| line.starts_with("<rect x="));
        bars.map(|line| line.split("width=\"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap()).collect()
    }

    #[test]
    fn bars_are_as_long_as_their_values_in_each_panel() {
        let svg = chart("a", &[panel(&[Some(50.0), Some(200.0), None]), panel(&[Some(0.0)])], "b");
        let widths = widths(&svg);
        assert!((widths[0] * 4.0 - widths[1]).abs() < 0.5, "{widths:?}");
        assert!(widths[1] > 300.0 && widths[2] == 0.0 && widths[3] == 0.0, "{widths:?}");
        assert!(svg.contains("not spoken here") && svg.contains(">200<") && svg.contains(">0.0<"));
        assert!(svg.contains("way 1 &lt;&amp;&gt;") && svg.ends_with("</svg>\n"));
    }

    #[test]
    fn a_panel_may_say_what_a_full_bar_is() {
        let of = |full| widths(&chart("a", &[Panel { full, ..panel(&[Some(50.0)]) }], "b"))[0];
        assert!((of(Some(100.0)) * 2.0 - of(None)).abs() < 0.5, "{} {}", of(Some(100.0)), of(None));
        assert_eq!(of(Some(10.0)), of(None), "no bar is longer than its room");
        let parts = Panel { full: Some(100.0), ..panel(&[Some(99.94), Some(100.0), Some(59.27)]) };
        let svg = chart("a", &[parts], "b");
        assert!(svg.contains(">99.9<") && svg.contains(">100<") && svg.contains(">59.3<"), "{svg}");
    }
}
