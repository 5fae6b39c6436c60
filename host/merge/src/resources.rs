//! Tells a shortage of the machine from a fault of a component.

use std::io::ErrorKind;

/// `EAGAIN`, `ENOMEM`, `ENFILE` and `EMFILE` on Linux.
const SHORT: [i32; 4] = [11, 12, 23, 24];

/// Whether an error of the engine, or one of its causes, says that the machine has no memory or descriptors left. Such
/// an error says nothing about the component, which may be tried again.
pub(crate) fn is_out_of_resources(error: &wasmtime::Error) -> bool {
    error.chain().any(|cause| match cause.downcast_ref::<std::io::Error>() {
        Some(io) => io.kind() == ErrorKind::OutOfMemory || io.raw_os_error().is_some_and(|code| SHORT.contains(&code)),
        // The engine's own error types for system calls are not public. Their texts end as those of std.
        None => {
            let text = cause.to_string();
            text == "out of memory" || SHORT.iter().any(|code| text.ends_with(&format!("(os error {code})")))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn what_is_short_is_found_at_the_end_of_the_chain() {
        for code in SHORT {
            let error = wasmtime::Error::from(io::Error::from_raw_os_error(code))
                .context("mmap failed to reserve 0x1000 bytes");
            assert!(is_out_of_resources(&error), "{error:#}");
            let text = wasmtime::Error::msg(format!("Cannot allocate memory (os error {code})"))
                .context("failed to make code executable");
            assert!(is_out_of_resources(&text), "{text:#}");
        }
        for other in ["type mismatch with parameters", "no export `merge` found", "(os error 12) is no end of it"] {
            assert!(!is_out_of_resources(&wasmtime::Error::msg(other)), "{other}");
        }
        assert!(!is_out_of_resources(&wasmtime::Error::from(io::Error::from_raw_os_error(22))), "EINVAL");
    }
}
