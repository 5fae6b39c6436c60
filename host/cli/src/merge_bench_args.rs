//! The options of `plugin bench`.

use std::path::PathBuf;

use clap::Args;

use crate::args::DEFAULT_MODULE_BYTES;

/// The options of `rejoin plugin bench`.
#[derive(Args, Debug)]
pub(crate) struct MergeBenchArgs {
    /// The component, as `plugin build` makes it, or the core module of a guest crate
    pub(crate) file: PathBuf,
    /// Values to merge instead of those of the plugin's sampler; @FILE for the bytes of a file
    #[arg(value_name = "VALUE", allow_negative_numbers = true, conflicts_with = "bytes")]
    pub(crate) values: Vec<String>,
    /// How many siblings each merge has: 2 to 256, several with commas between them
    #[arg(
        long,
        value_name = "COUNT",
        value_delimiter = ',',
        default_values_t = [2, 8, 32],
        value_parser = clap::value_parser!(u16).range(2..=256)
    )]
    pub(crate) siblings: Vec<u16>,
    /// About how many bytes each value of the sampler has: up to 1048576, several with commas between them
    #[arg(
        long,
        value_name = "BYTES",
        value_delimiter = ',',
        default_values_t = [100, 1_024, 16_384],
        value_parser = clap::value_parser!(u32).range(1..=1_048_576)
    )]
    pub(crate) bytes: Vec<u32>,
    /// Seconds to measure each number of siblings of each size
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub(crate) seconds: u64,
    /// Bytes of a component that the nodes accept, their `module_bytes`
    #[arg(long, value_name = "BYTES", default_value_t = DEFAULT_MODULE_BYTES)]
    pub(crate) module_bytes: usize,
}
