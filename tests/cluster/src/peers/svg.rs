//! Charts as SVG: lines over a scale, and bars. Colours are classes, so that the page has them for light and dark.

/// The size of a chart, and of the space around its plot.
const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 46.0;
/// Of a line of the legend, and of a bar with its gap.
const LEGEND: f64 = 18.0;
const BAR: f64 = 26.0;
/// Where bars begin, behind their names.
const NAMES: f64 = 250.0;
/// The room for the value behind the longest bar.
const VALUES: f64 = 110.0;

/// Maps values to places.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Scale {
    low: f64,
    high: f64,
    log: bool,
    /// The places of the lowest and the highest value.
    from: f64,
    to: f64,
}

impl Scale {
    /// A scale from 0 to the largest of the values.
    pub(crate) fn linear(values: &[f64], from: f64, to: f64) -> Self {
        let high = values.iter().copied().filter(|value| value.is_finite()).fold(0.0, f64::max);
        Self { low: 0.0, high: if high > 0.0 { high } else { 1.0 }, log: false, from, to }
    }

    /// A scale of whole powers of ten around the values. Only those above 0 have a place on it.
    pub(crate) fn log(values: &[f64], from: f64, to: f64) -> Self {
        let some = || values.iter().copied().filter(|value| value.is_finite() && *value > 0.0);
        let low = some().fold(f64::INFINITY, f64::min);
        let (low, high) = if low.is_finite() { (low, some().fold(low, f64::max)) } else { (1.0, 10.0) };
        let low = 10_f64.powf(low.log10().floor());
        let high = 10_f64.powf(high.log10().ceil());
        Self { low, high: if high > low { high } else { low * 10.0 }, log: true, from, to }
    }

    /// The place of a value; none if it has no place on a logarithmic scale.
    pub(crate) fn at(self, value: f64) -> Option<f64> {
        let share = match self.log {
            true if value > 0.0 => (value / self.low).log10() / (self.high / self.low).log10(),
            true => return None,
            false => (value - self.low) / (self.high - self.low),
        };
        share.is_finite().then(|| self.from + share.clamp(0.0, 1.0) * (self.to - self.from))
    }

    /// Round values to mark: powers of ten, or four to ten steps of 1, 2 or 5.
    pub(crate) fn ticks(self) -> Vec<f64> {
        if self.log {
            let powers = (self.high / self.low).log10().round() as i32;
            return (0..=powers).map(|power| self.low * 10_f64.powi(power)).collect();
        }
        let rough = self.high / 5.0;
        let power = 10_f64.powf(rough.log10().floor());
        let step = power
            * if rough / power < 2.0 {
                1.0
            } else if rough / power < 5.0 {
                2.0
            } else {
                5.0
            };
        (0..=(self.high / step + 1e-9) as u32).map(|tick| f64::from(tick) * step).collect()
    }
}

/// A value with its spread.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Point {
    pub(crate) x: f64,
    pub(crate) y: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

/// A line of a chart.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub(crate) name: String,
    /// Which colour.
    pub(crate) color: usize,
    pub(crate) points: Vec<Point>,
}

/// A chart of lines over `x`, both axes logarithmic. Each point has a bar from its lowest to its highest value.
pub(crate) fn lines(title: &str, x_title: &str, series: &[Series]) -> String {
    let all = |of: fn(&Point) -> f64| series.iter().flat_map(|line| line.points.iter().map(of)).collect::<Vec<f64>>();
    let x = Scale::log(&all(|point| point.x), LEFT, WIDTH - RIGHT);
    let ys = [all(|point| point.low), all(|point| point.high)].concat();
    let y = Scale::log(&ys, HEIGHT - BOTTOM, TOP);
    let named = series.iter().filter(|line| !line.name.is_empty()).count();
    let mut svg = open(title, HEIGHT + LEGEND * named as f64);
    for tick in x.ticks() {
        let Some(at) = x.at(tick) else { continue };
        let (top, bottom) = (TOP, HEIGHT - BOTTOM);
        svg.push_str(&format!(r#"<line class="grid" x1="{at:.1}" y1="{top:.1}" x2="{at:.1}" y2="{bottom:.1}"/>"#));
        text(&mut svg, (at, bottom + 16.0), "middle", &short(tick));
    }
    for tick in y.ticks() {
        let Some(at) = y.at(tick) else { continue };
        let right = WIDTH - RIGHT;
        svg.push_str(&format!(r#"<line class="grid" x1="{LEFT:.1}" y1="{at:.1}" x2="{right:.1}" y2="{at:.1}"/>"#));
        text(&mut svg, (LEFT - 6.0, at + 4.0), "end", &short(tick));
    }
    text(&mut svg, ((LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - BOTTOM + 36.0), "middle", x_title);
    for line in series {
        svg.push_str(&one_line(line, x, y));
    }
    for (number, line) in series.iter().filter(|line| !line.name.is_empty()).enumerate() {
        let at = HEIGHT + LEGEND * number as f64;
        let color = line.color;
        svg.push_str(&format!(r#"<rect class="f{color}" x="{LEFT:.1}" y="{:.1}" width="12" height="12"/>"#, at - 10.0));
        text(&mut svg, (LEFT + 20.0, at), "start", &line.name);
    }
    svg + "</svg>\n"
}

fn one_line(line: &Series, x: Scale, y: Scale) -> String {
    let color = line.color;
    let places = line.points.iter().filter_map(|point| Some((x.at(point.x)?, y.at(point.y)?, point)));
    let places: Vec<(f64, f64, &Point)> = places.collect();
    let path: Vec<String> = places.iter().map(|(x, y, _)| format!("{x:.1},{y:.1}")).collect();
    let mut svg = format!(r#"<polyline class="s{color}" points="{}"/>"#, path.join(" "));
    for (at, middle, point) in places {
        if let (Some(low), Some(high)) = (y.at(point.low), y.at(point.high)) {
            svg.push_str(&format!(
                r#"<line class="s{color}" x1="{at:.1}" y1="{low:.1}" x2="{at:.1}" y2="{high:.1}"/>"#
            ));
        }
        let says = escaped(&format!(
            "{} {}: {} ({} to {})",
            line.name,
            short(point.x),
            short(point.y),
            short(point.low),
            short(point.high)
        ));
        svg.push_str(&format!(
            r#"<circle class="f{color}" cx="{at:.1}" cy="{middle:.1}" r="3.5"><title>{says}</title></circle>"#
        ));
    }
    svg
}

/// A bar with its name.
#[derive(Clone, Debug)]
pub(crate) struct Bar {
    pub(crate) name: String,
    pub(crate) color: usize,
    pub(crate) low: f64,
    pub(crate) value: f64,
    pub(crate) high: f64,
}

/// Bars below each other, with their values in `unit`.
pub(crate) fn bars(title: &str, unit: &str, bars: &[Bar]) -> String {
    let highs: Vec<f64> = bars.iter().map(|bar| bar.high).collect();
    let scale = Scale::linear(&highs, NAMES, WIDTH - VALUES);
    let mut svg = open(title, TOP + BAR * bars.len() as f64 + 6.0);
    for (number, bar) in bars.iter().enumerate() {
        let top = TOP + BAR * number as f64;
        let place = |value: f64| scale.at(value).unwrap_or(NAMES);
        let (low, end, high) = (place(bar.low), place(bar.value), place(bar.high));
        let (color, middle) = (bar.color, top + 9.0);
        text(&mut svg, (NAMES - 8.0, top + 13.0), "end", &bar.name);
        let width = end - NAMES;
        svg.push_str(&format!(
            r#"<rect class="f{color}" x="{NAMES:.1}" y="{top:.1}" width="{width:.1}" height="18"/>"#
        ));
        svg.push_str(&format!(
            r#"<line class="spread" x1="{low:.1}" y1="{middle:.1}" x2="{high:.1}" y2="{middle:.1}"/>"#
        ));
        text(&mut svg, (high + 6.0, top + 13.0), "start", &format!("{} {unit}", short(bar.value)));
    }
    svg + "</svg>\n"
}

fn open(title: &str, height: f64) -> String {
    let title = escaped(title);
    format!(
        r#"<svg viewBox="0 0 {WIDTH:.0} {height:.0}" role="img" aria-label="{title}">
<text class="title" x="8" y="18">{title}</text>"#
    )
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, words: &str) {
    svg.push_str(&format!(r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{}</text>"#, escaped(words)));
}

/// Text that means itself in HTML and SVG.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A number of three digits or so.
pub(crate) fn short(value: f64) -> String {
    let (value, unit) = match value.abs() {
        size if size >= 1e9 => (value / 1e9, "G"),
        size if size >= 1e6 => (value / 1e6, "M"),
        size if size >= 1e4 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let digits = match value.abs() {
        size if size >= 99.95 || size == 0.0 => 0,
        size if size >= 9.995 => 1,
        _ => 2,
    };
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_map_their_ends_to_the_ends_and_mark_round_values() {
        let linear = Scale::linear(&[3.0, 40.0, f64::NAN], 100.0, 200.0);
        assert_eq!((linear.at(0.0), linear.at(40.0), linear.at(10.0)), (Some(100.0), Some(200.0), Some(125.0)));
        assert_eq!(linear.ticks(), [0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 35.0, 40.0]);
        let log = Scale::log(&[20.0, 900.0, 0.0], 300.0, 0.0);
        assert_eq!(log.ticks(), [10.0, 100.0, 1_000.0]);
        assert_eq!((log.at(10.0), log.at(100.0), log.at(1_000.0)), (Some(300.0), Some(150.0), Some(0.0)));
        assert_eq!((log.at(0.0), log.at(f64::NAN)), (None, None));
        assert_eq!(Scale::log(&[], 0.0, 1.0).ticks(), [1.0, 10.0]);
        assert_eq!(Scale::log(&[100.0], 0.0, 1.0).ticks(), [100.0, 1_000.0]);
        assert_eq!(Scale::linear(&[], 0.0, 1.0).at(0.5), Some(0.5));
    }

    #[test]
    fn lines_lead_through_their_points() {
        let point = |x, y| Point { x, y, low: y / 2.0, high: y * 2.0 };
        let series = [
            Series { name: "a <b>".into(), color: 1, points: vec![point(10.0, 5.0), point(1_000.0, 20.0)] },
            Series { name: String::new(), color: 2, points: vec![point(100.0, f64::NAN)] },
        ];
        let svg = lines("rate & keys", "keys", &series);
        // 544 is the right end. From 1 below to 100 above, 10 stands in the middle of the height, which is 240.
        assert!(svg.contains(r#"<polyline class="s1" points="64.0,190.1 544.0,117.9"/>"#), "{svg}");
        assert!(svg.contains(r#"<line class="s1" x1="544.0" y1="154.0" x2="544.0" y2="81.8"/>"#), "its spread: {svg}");
        assert!(svg.contains(r#"<polyline class="s2" points=""/>"#), "what was not measured has no place: {svg}");
        assert!(svg.contains("a &lt;b&gt;") && svg.contains("rate &amp; keys") && !svg.contains("NaN,"), "{svg}");
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert_eq!(svg.matches("<circle").count(), 2);
    }

    #[test]
    fn bars_are_as_long_as_their_values() {
        let bar = |name: &str, value| Bar { name: name.into(), color: 0, low: value, value, high: value };
        let svg = bars("CPU", "µs", &[bar("x", 50.0), bar("y", 25.0)]);
        assert!(svg.contains(r#"x="250.0" y="34.0" width="200.0" height="18"/>"#), "{svg}");
        assert!(svg.contains(r#"x="250.0" y="60.0" width="100.0" height="18"/>"#), "{svg}");
        assert!(svg.contains(">50 µs</text>") && svg.contains(">25 µs</text>"), "{svg}");
    }

    #[test]
    fn numbers_are_short() {
        let shown = [0.0, 0.25, 1.5, 12.34, 99.96, 1_234.0, 12_345.0, 1e6, 2.5e9].map(short);
        assert_eq!(shown, ["0", "0.25", "1.5", "12.3", "100", "1234", "12.3k", "1M", "2.5G"]);
    }
}
