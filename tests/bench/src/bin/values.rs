//! What large values cost the tree, with values in the tables and in files of their own, plain and compressed.
//!
//! `cargo run -p rejoin-test-bench --features lz4 --bin rejoin-bench-values [MEBIBYTES]` writes so many mebibytes of
//! values (64 if nothing is said), overwrites all of them three times in random order with flushes and compactions as a
//! shard does them, and then reads values at random. It prints, per operation, the CPU time of the process; and the
//! bytes written and left on the disk as multiples of the values' own. The journal writes every value once more.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "it prints its figures")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lsm_tree::compaction::Leveled;
use lsm_tree::config::CompressionPolicy;
use lsm_tree::{AbstractTree, AnyTree, Cache, CompressionType, Config, KvSeparationOptions, SequenceNumberCounter};
use rand_core::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use rejoin_test_bench::CpuTime;

/// Bytes after which the memtable is flushed: a quarter of a shard's default, for a quarter of the data.
const MEMTABLE: u64 = 16 << 20;
/// Bytes of the block cache: too small for the data.
const CACHE: u64 = 8 << 20;
/// How often all values are overwritten.
const OVERWRITES: u64 = 3;
/// Reads that are timed.
const READS: u64 = 4000;
/// Reading below the largest sequence number sees everything.
const NEWEST: u64 = u64::MAX >> 1;

type Error = Box<dyn std::error::Error>;

/// Where values are, and how.
#[derive(Clone, Copy)]
struct Layout {
    name: &'static str,
    separated: bool,
    compression: CompressionType,
}

const LAYOUTS: &[Layout] = &[
    Layout { name: "in tables", separated: false, compression: CompressionType::None },
    Layout { name: "separated", separated: true, compression: CompressionType::None },
    #[cfg(feature = "lz4")]
    Layout { name: "in tables, lz4", separated: false, compression: CompressionType::Lz4 },
    #[cfg(feature = "lz4")]
    Layout { name: "separated, lz4", separated: true, compression: CompressionType::Lz4 },
];

/// What a layout has cost.
struct Cost {
    write_cpu: Duration,
    written: f64,
    space: f64,
    read_cpu: Duration,
    median: Duration,
    tail: Duration,
}

fn main() -> Result<(), Error> {
    let mebibytes: u64 = std::env::args().nth(1).map_or(Ok(64), |text| text.parse())?;
    println!(
        "{mebibytes} MiB of values, overwritten {OVERWRITES} times; memtable {} MiB, cache {} MiB",
        MEMTABLE >> 20,
        CACHE >> 20
    );
    println!("value    content layout          CPU/write  written  space  CPU/read   p50      p99");
    for bytes in [1 << 10, 10 << 10, 100 << 10] {
        for text in [true, false] {
            for layout in LAYOUTS {
                let Cost { write_cpu, written, space, read_cpu, median, tail } =
                    measure(layout, bytes, text, (mebibytes << 20) / bytes as u64)?;
                println!(
                    "{:>4} KiB {:<7} {:<15} {:>6.1} µs {:>7.2}x {:>5.2}x {:>6.1} µs {:>6.1} µs {:>6.1} µs",
                    bytes >> 10,
                    if text { "text" } else { "random" },
                    layout.name,
                    micros(write_cpu),
                    written,
                    space,
                    micros(read_cpu),
                    micros(median),
                    micros(tail)
                );
            }
        }
    }
    Ok(())
}

fn measure(layout: &Layout, bytes: usize, text: bool, keys: u64) -> Result<Cost, Error> {
    let dir = tempfile::tempdir_in(".")?;
    let (seqno, visible) = (SequenceNumberCounter::default(), SequenceNumberCounter::default());
    let tree = open(layout, dir.path(), &seqno, &visible)?;
    let mut random = Xoshiro256PlusPlus::seed_from_u64(7);
    let mut value = vec![0; bytes];
    let (cpu, before) = (CpuTime::now(), written()?);
    let writes = keys * (1 + OVERWRITES);
    let mut filling = Duration::ZERO;
    for write in 0..writes {
        let made = CpuTime::now();
        fill(&mut value, text, &mut random);
        filling += CpuTime::now() - made;
        let number = if write < keys { write } else { random.next_u64() % keys };
        let (_, size) = tree.insert(key(number), value.as_slice(), seqno.next());
        visible.fetch_max(seqno.get());
        if size >= MEMTABLE {
            flush(&tree, dir.path(), &visible)?;
        }
    }
    flush(&tree, dir.path(), &visible)?;
    let payload = (writes * bytes as u64) as f64;
    let write_cpu = (CpuTime::now() - cpu).saturating_sub(filling) / u32::try_from(writes)?;
    let written = (written()? - before) as f64 / payload;
    let space = size(dir.path())? as f64 / (keys * bytes as u64) as f64;
    let mut times = Vec::new();
    let cpu = CpuTime::now();
    for _ in 0..READS {
        let (number, started) = (random.next_u64() % keys, Instant::now());
        let found = tree.get(key(number), NEWEST)?.ok_or("a value is gone")?;
        times.push(started.elapsed());
        assert_eq!(found.len(), bytes);
    }
    let read_cpu = (CpuTime::now() - cpu) / u32::try_from(READS)?;
    times.sort();
    Ok(Cost {
        write_cpu,
        written,
        space,
        read_cpu,
        median: times[times.len() / 2],
        tail: times[times.len() * 99 / 100],
    })
}

fn open(
    layout: &Layout,
    dir: &Path,
    seqno: &SequenceNumberCounter,
    visible: &SequenceNumberCounter,
) -> Result<AnyTree, Error> {
    let config =
        Config::new(dir, seqno.clone(), visible.clone()).use_cache(Arc::new(Cache::with_capacity_bytes(CACHE)));
    let config = config.data_block_compression_policy(CompressionPolicy::all(layout.compression));
    let separation = KvSeparationOptions::default().separation_threshold(1 << 10).compression(layout.compression);
    Ok(config.with_kv_separation(layout.separated.then_some(separation)).open()?)
}

/// Flushes, and compacts until nothing is due, as a shard's maintenance does.
fn flush(tree: &AnyTree, dir: &Path, visible: &SequenceNumberCounter) -> Result<(), Error> {
    tree.rotate_memtable();
    tree.flush(&tree.get_flush_lock(), visible.get())?;
    loop {
        let before = tree.current_version().id();
        tree.compact(Arc::new(Leveled::default()), visible.get())?;
        tree.get_version_history_lock().maintenance(dir, NEWEST)?;
        if tree.current_version().id() == before {
            return Ok(());
        }
    }
}

/// Fills a value with noise, or with text: words of a small dictionary and numbers.
fn fill(value: &mut [u8], text: bool, random: &mut Xoshiro256PlusPlus) {
    if !text {
        return random.fill_bytes(value);
    }
    let words = ["\"quantity\":", "\"item\":\"", "\"price\":", "\",", "\"added\":", "true,", "\"note\":\"", "red "];
    let mut at = 0;
    while at < value.len() {
        let drawn = random.next_u64();
        let word = format!("{}{}", words[(drawn % 8) as usize], (drawn >> 8) % 10_000);
        let length = word.len().min(value.len() - at);
        value[at..at + length].copy_from_slice(&word.as_bytes()[..length]);
        at += length;
    }
}

/// A key as long as those of objects, scattered over the whole range.
fn key(number: u64) -> [u8; 40] {
    let mut key = [7; 40];
    key[8..16].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    key
}

/// Bytes that this process has given to write calls so far.
fn written() -> Result<u64, Error> {
    let text = std::fs::read_to_string("/proc/self/io")?;
    let line = text.lines().find_map(|line| line.strip_prefix("wchar: ")).ok_or("no wchar in /proc/self/io")?;
    Ok(line.parse()?)
}

/// Bytes of all files below a directory.
fn size(dir: &Path) -> Result<u64, Error> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        bytes += if entry.file_type()?.is_dir() { size(&entry.path())? } else { entry.metadata()?.len() };
    }
    Ok(bytes)
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
