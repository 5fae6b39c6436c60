//! The wall-clock limit behind the fuel: a thread that counts epochs, by which the engine stops a call.

use std::time::Duration;

use wasmtime::Engine;

use crate::fault::HostError;

/// The length of a tick. A call may exceed its limit by two.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// Starts the thread. It ends soon after the last user of the engine is dropped.
pub(crate) fn start(engine: &Engine) -> Result<(), HostError> {
    let weak = engine.weak();
    let tick = move || {
        while let Some(engine) = weak.upgrade() {
            engine.increment_epoch();
            drop(engine);
            std::thread::sleep(TICK);
        }
    };
    std::thread::Builder::new().name("merge-clock".into()).spawn(tick)?;
    Ok(())
}

/// The ticks of a call: at least its limit, whenever the current tick began.
pub(crate) fn ticks(wall: Duration) -> u64 {
    let ticks = wall.as_nanos().div_ceil(TICK.as_nanos());
    u64::try_from(ticks).unwrap_or(u64::MAX / 2).saturating_add(1).min(u64::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_never_cut_short() {
        assert_eq!(ticks(Duration::ZERO), 1);
        assert_eq!(ticks(Duration::from_millis(1)), 2);
        assert_eq!(ticks(Duration::from_millis(20)), 3);
        assert_eq!(ticks(Duration::MAX), u64::MAX / 2);
    }
}
