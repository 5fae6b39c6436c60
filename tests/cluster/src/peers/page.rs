//! The report: one HTML page with everything in it, a table in Markdown, and JSON.

use serde_json::{Value, json};

use crate::peers::figures::{Figures, Of, Spread, as_json};
use crate::peers::measure::{Along, MODES, Measured, PERCENTS, Peak};
use crate::peers::options::Options;
use crate::peers::svg::{Bar, Point, Series, bars, escaped, lines, short};
use crate::peers::systems::System;

/// The columns of the table of peaks.
const COLUMNS: [&str; 8] =
    ["system", "operation", "rate /s", "p50", "p99", "CPU of servers", "CPU of the client", "fdatasync p50"];

/// The colours of the systems, for light and dark. Colours of one promise are near each other.
const COLORS: [(&str, &str); 6] = [
    ("#0b62b8", "#6ab0f3"),
    ("#b3261e", "#f2938c"),
    ("#2e7d32", "#7fce84"),
    ("#4a9fd8", "#a5d5f7"),
    ("#e07a5f", "#f7c2b2"),
    ("#8bb174", "#c5e0b4"),
];

const STYLE: &str = "\
body{font:15px/1.5 system-ui,sans-serif;max-width:1180px;margin:2em auto;padding:0 1em}
body{background:var(--bg);color:var(--fg)}
h1{font-size:1.5em}h2{font-size:1.2em;margin-top:2em}
svg{width:100%;max-width:560px;background:var(--plot);border-radius:6px;margin:4px}
svg text{font:11px system-ui,sans-serif;fill:var(--fg)}svg text.title{font-size:13px;font-weight:600}
.charts{display:flex;flex-wrap:wrap}.charts svg{flex:1 1 420px}
.grid{stroke:var(--grid);stroke-width:1}.spread{stroke:var(--fg);stroke-width:1.5}
polyline{fill:none;stroke-width:2}
table{border-collapse:collapse}td,th{padding:2px 10px;border-bottom:1px solid var(--grid);text-align:right}
td:first-child,th:first-child{text-align:left}
";

/// A figure of growth: its title and unit, and where it is.
const GROWTH: [(&str, Of); 6] = [
    ("operations a second, mixed", |run| run.rate),
    ("CPU of servers for an operation, µs", |run| run.server_cpu_us),
    ("p99, ms", |run| run.p99_us / 1e3),
    ("resident memory of the nodes, MiB", |run| run.memory_bytes / 1_048_576.0),
    ("data on the disks of the nodes, MiB", |run| run.disk_bytes / 1_048_576.0),
    ("restart after kill -9, ms", |run| run.restart_ms),
];

/// The table of peaks: medians, with the lowest and the highest.
fn rows(measured: &Measured) -> Vec<[String; 8]> {
    let row = |peak: &Peak| {
        let runs = &peak.runs;
        let with = |of: Of, unit: &str| {
            Spread::of(runs, of).map_or_else(
                || "-".to_owned(),
                |spread| format!("{}{unit} ({} to {})", short(spread.median), short(spread.low), short(spread.high)),
            )
        };
        [
            peak.system.name().to_owned(),
            peak.mode.to_owned(),
            with(|run| run.rate, ""),
            with(|run| run.p50_us / 1e3, " ms"),
            with(|run| run.p99_us / 1e3, " ms"),
            with(|run| run.server_cpu_us, " µs"),
            with(|run| run.client_cpu_us, " µs"),
            with(|run| run.fdatasync_us / 1e3, " ms"),
        ]
    };
    let mut peaks: Vec<&Peak> = measured.peaks.iter().collect();
    peaks.sort_by_key(|peak| (MODES.iter().position(|mode| *mode == peak.mode), peak.system.color()));
    peaks.into_iter().map(row).collect()
}

/// The table of peaks, for a terminal.
pub(crate) fn table(measured: &Measured) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut table = line(&COLUMNS.map(str::to_owned));
    table.push_str(&line(&COLUMNS.map(|_| "---".to_owned())));
    rows(measured).iter().for_each(|row| table.push_str(&line(row)));
    table
}

/// What was left out, and what has failed.
pub(crate) fn notes(measured: &Measured) -> Vec<String> {
    let peaks = measured.peaks.iter().map(|peak| (format!("{}, {}", peak.system.name(), peak.mode), &peak.runs));
    let shares = measured.shares.iter().map(|share| {
        (format!("{}, {} at {} % of the peak", share.system.name(), MODES[0], share.percent), &share.runs)
    });
    let growth = measured
        .growth
        .iter()
        .map(|growth| (format!("rejoin, mixed with {} {}", growth.at, growth.along.title()), &growth.runs));
    let failures = peaks.chain(shares).chain(growth).filter_map(|(what, runs)| {
        let failed: f64 = runs.iter().map(|run| run.failed).sum();
        (failed > 0.0).then(|| format!("{what}: {failed} operations failed: they are in no rate and no latency"))
    });
    measured.notes.iter().cloned().chain(failures).collect()
}

/// What the runs were, in a sentence.
fn load(options: &Options) -> String {
    format!(
        "64 clients, values of 100 bytes and 10 000 keys where nothing else is said; {} rounds of {} s; medians, with \
         the lowest and the highest of all rounds in brackets",
        options.rounds, options.seconds
    )
}

/// All figures.
pub(crate) fn document(measured: &Measured, options: &Options) -> Value {
    let peaks = measured
        .peaks
        .iter()
        .map(|peak| json!({"system": peak.system.name(), "operation": peak.mode, "figures": as_json(&peak.runs)}));
    let shares = measured.shares.iter().map(|share| {
        json!({"system": share.system.name(), "percent_of_peak": share.percent, "figures": as_json(&share.runs)})
    });
    let growth = measured.growth.iter().map(|growth| {
        let (keys, value_bytes) = growth.along.load(growth.at);
        let along = match growth.along {
            Along::Keys => "keys",
            Along::Values => "value_bytes",
        };
        json!({"along": along, "keys": keys, "value_bytes": value_bytes, "figures": as_json(&growth.runs)})
    });
    json!({
        "seconds": options.seconds,
        "rounds": options.rounds,
        "processors": processors(),
        "peaks": peaks.collect::<Vec<_>>(),
        "latency_at_shares_of_the_peak": shares.collect::<Vec<_>>(),
        "growth": growth.collect::<Vec<_>>(),
        "notes": notes(measured),
    })
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(0, usize::from)
}

/// The page.
pub(crate) fn html(measured: &Measured, options: &Options) -> String {
    let mut body =
        format!("<h1>Rejoin beside its peers</h1><p>{}. {} processors.</p>", escaped(&load(options)), processors());
    for note in notes(measured) {
        body.push_str(&format!("<p><strong>{}</strong></p>", escaped(&note)));
    }
    body.push_str("<h2>As fast as they go</h2>");
    body.push_str(&html_table(measured));
    body.push_str("<h2>CPU of all servers for an operation</h2><div class=\"charts\">");
    MODES.into_iter().for_each(|mode| body.push_str(&cpu_bars(measured, mode)));
    body.push_str("</div><h2>Rate against latency</h2><p>");
    let percents: Vec<String> = PERCENTS.iter().map(u32::to_string).collect();
    body.push_str(&format!(
        "Writes that are due at fixed times, at {} % of the peak of the same round. Latency counts from when a write \
         was due.</p><div class=\"charts\">",
        percents.join(", ")
    ));
    let latencies: [(&str, Of); 2] = [("p50, ms", |run| run.p50_us / 1e3), ("p99, ms", |run| run.p99_us / 1e3)];
    latencies.into_iter().for_each(|(title, of)| body.push_str(&latency_chart(measured, title, of)));
    body.push_str("</div>");
    for (along, how) in [
        (Along::Keys, "Values of 100 bytes."),
        (Along::Values, "Keys so many that the values take 64 MiB, from 64 to 1 000."),
    ] {
        body.push_str(&format!(
            "<h2>Growth with the {}</h2><p>Rejoin, durability os, reads and writes half and half after all keys were \
             written once. {how}</p><div class=\"charts\">",
            along.title()
        ));
        GROWTH.into_iter().for_each(|(title, of)| body.push_str(&growth_chart(measured, along, title, of)));
        body.push_str("</div>");
    }
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Rejoin beside its peers</title>\n\
         <meta name=\"viewport\" content=\"width=device-width\"><style>\n{}{STYLE}</style></head>\n\
         <body>{body}</body></html>\n",
        variables()
    )
}

/// Colours as variables, which the dark scheme replaces.
fn variables() -> String {
    let of = |color: fn(&(&'static str, &'static str)) -> &'static str| -> String {
        COLORS.iter().enumerate().map(|(number, pair)| format!("--c{number}:{};", color(pair))).collect()
    };
    let classes: String = (0..COLORS.len())
        .map(|number| format!(".s{number}{{stroke:var(--c{number})}}.f{number}{{fill:var(--c{number})}}\n"))
        .collect();
    format!(
        ":root{{color-scheme:light dark;--bg:#fff;--fg:#1b1b1b;--plot:#f7f7f8;--grid:#d9d9de;{}}}\n\
         @media(prefers-color-scheme:dark){{\
         :root{{--bg:#16181c;--fg:#e6e6e6;--plot:#1f2227;--grid:#3a3f47;{}}}}}\n{classes}",
        of(|pair| pair.0),
        of(|pair| pair.1)
    )
}

fn html_table(measured: &Measured) -> String {
    let cells = |tag: &str, cells: &[String]| {
        let cells: String = cells.iter().map(|cell| format!("<{tag}>{}</{tag}>", escaped(cell))).collect();
        format!("<tr>{cells}</tr>")
    };
    let rows: String = rows(measured).iter().map(|row| cells("td", row)).collect();
    format!("<table>{}{rows}</table>", cells("th", &COLUMNS.map(str::to_owned)))
}

fn cpu_bars(measured: &Measured, mode: &str) -> String {
    let bar = |system: System| {
        let peak = measured.peaks.iter().find(|peak| peak.system == system && peak.mode == mode)?;
        let Spread { low, median, high } = Spread::of(&peak.runs, |run| run.server_cpu_us)?;
        Some(Bar { name: system.name().to_owned(), color: system.color(), low, value: median, high })
    };
    bars(&format!("{mode}, µs"), "µs", &System::ALL.into_iter().filter_map(bar).collect::<Vec<_>>())
}

/// A point of a line, by the medians of its runs.
fn point(x: Option<f64>, runs: &[Figures], of: Of) -> Option<Point> {
    let Spread { low, median, high } = Spread::of(runs, of)?;
    Some(Point { x: x?, y: median, low, high })
}

fn latency_chart(measured: &Measured, title: &str, of: Of) -> String {
    let line = |system: System| {
        let shares = measured.shares.iter().filter(|share| share.system == system);
        let mut points: Vec<Point> = shares
            .filter_map(|share| {
                let rate = Spread::of(&share.runs, |run| run.rate).map(|spread| spread.median);
                point(rate, &share.runs, of)
            })
            .collect();
        points.sort_by(|one, other| one.x.total_cmp(&other.x));
        Series { name: system.name().to_owned(), color: system.color(), points }
    };
    let series: Vec<Series> = System::ALL.into_iter().map(line).filter(|line| !line.points.is_empty()).collect();
    lines(title, "writes a second", &series)
}

fn growth_chart(measured: &Measured, along: Along, title: &str, of: Of) -> String {
    let there = measured.growth.iter().filter(|growth| growth.along == along);
    let points: Vec<Point> = there.filter_map(|growth| point(Some(growth.at as f64), &growth.runs, of)).collect();
    let series = [Series { name: String::new(), color: 0, points }];
    lines(title, along.title(), &series)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::measure::{Growth, Share};

    fn run(rate: f64, cpu: f64) -> Figures {
        let report = json!({
            "rate": rate, "latency": {"p50_us": 1_000, "p99_us": 2_000}, "server_cpu_us": cpu, "client_cpu_us": 3,
            "fdatasync": {"p50_us": 100}, "memory": [{"after_bytes": 3_145_728}], "disk_bytes": 1_048_576,
            "restart_ms": 50.0
        });
        Figures::of(&report).unwrap()
    }

    fn measured() -> Measured {
        let [rejoin, redis] = [System::Rejoin { fsync: true }, System::Redis { always: true }];
        let runs = vec![run(900.0, 30.0), run(1_100.0, 34.0), run(1_000.0, 32.0)];
        Measured {
            peaks: vec![
                Peak { system: redis, mode: "put", runs: vec![run(2_000.0, 20.0)] },
                Peak { system: rejoin, mode: "get", runs: runs.clone() },
                Peak { system: rejoin, mode: "put", runs: runs.clone() },
            ],
            shares: vec![
                Share { system: rejoin, percent: 90, runs: vec![run(900.0, 1.0)] },
                Share { system: rejoin, percent: 10, runs: vec![run(100.0, 1.0)] },
            ],
            growth: vec![Growth { along: Along::Keys, at: 1_000, runs }],
            notes: vec!["etcd is not measured: <why>".to_owned()],
        }
    }

    fn options() -> Options {
        Options::parse(&[]).unwrap()
    }

    #[test]
    fn the_table_has_medians_with_their_spread_and_like_beside_like() {
        let table = table(&measured());
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 5);
        assert_eq!(
            lines[2],
            "| rejoin, 3 nodes, durability fsync | put | 1000 (900 to 1100) | 1 ms (1 to 1) | 2 ms (2 to 2) \
             | 32 µs (30 to 34) | 3 µs (3 to 3) | 0.1 ms (0.1 to 0.1) |"
        );
        assert!(lines[3].contains("Redis") && lines[4].contains("| get |"), "{table}");
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere_and_shows_everything() {
        let page = html(&measured(), &options());
        for elsewhere in ["<script", "http:", "https:", "src=", "@import", "url("] {
            assert!(!page.contains(elsewhere), "{elsewhere}");
        }
        assert!(page.contains("prefers-color-scheme:dark"));
        assert!(page.contains("etcd is not measured: &lt;why&gt;"));
        let charts = MODES.len() + 2 + 2 * GROWTH.len();
        assert_eq!((page.matches("<svg ").count(), page.matches("</svg>").count()), (charts, charts));
        assert_eq!(page.matches("<tr>").count(), 4);
        assert!(page.matches(r#"class="s0" points=""#).count() >= 2, "a line of latency and one of growth");
        for color in 0..COLORS.len() {
            assert!(page.contains(&format!(".f{color}{{fill:var(--c{color})}}")), "{color}");
        }
    }

    #[test]
    fn what_has_failed_is_noted_beside_what_was_left_out() {
        let mut measured = measured();
        measured.shares[0].runs[0].failed = 2.0;
        measured.growth[0].runs.iter_mut().for_each(|run| run.failed = 1.0);
        let notes = notes(&measured);
        assert_eq!(notes.len(), 3);
        let at_90 = "rejoin, 3 nodes, durability fsync, put at 90 % of the peak: 2 operations failed";
        assert!(notes[1].starts_with(at_90), "{notes:?}");
        assert_eq!(notes[2], "rejoin, mixed with 1000 keys: 3 operations failed: they are in no rate and no latency");
        assert!(html(&measured, &options()).contains("2 operations failed"));
    }

    #[test]
    fn the_document_has_every_round() {
        let document = document(&measured(), &options());
        assert_eq!(document["peaks"][2]["figures"]["rate"]["median"], 1_000.0);
        assert_eq!(document["peaks"][2]["figures"]["rate"]["rounds"], json!([900.0, 1_100.0, 1_000.0]));
        assert_eq!(document["latency_at_shares_of_the_peak"][1]["percent_of_peak"], 10);
        assert_eq!(document["growth"][0]["keys"], 1_000);
        assert_eq!(document["growth"][0]["figures"]["disk_bytes"]["low"], 1_048_576.0);
        assert_eq!(document["notes"], json!(["etcd is not measured: <why>"]));
    }
}
