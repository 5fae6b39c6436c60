//! Runs merge plugins: WebAssembly components, sandboxed, metered and deterministic.
