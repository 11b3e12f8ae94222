//! The only place where a thread blocks on a future. In a browser threads cannot block, so this is not compiled there.

use std::cell::Cell;

use crate::runtime::threads;

thread_local! {
    static IS_BLOCKED: Cell<bool> = const { Cell::new(false) };
}

/// Blocks until a future is ready. If the future waits for the device, it polls the device.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Reset(bool);

    impl Drop for Reset {
        fn drop(&mut self) {
            IS_BLOCKED.set(self.0);
            // An executor that runs on this thread may have been woken meanwhile, and what was waited for here may have
            // taken its wake-up. So it looks again.
            threads::wake_self();
        }
    }

    let _reset = Reset(IS_BLOCKED.replace(true));
    pollster::block_on(future)
}

/// Whether this thread is in [`block_on`], so that a future may block it. Otherwise an executor polls the future, and
/// may have others to poll.
pub fn is_blocked() -> bool {
    IS_BLOCKED.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_blocked_until_the_last_call_ends() {
        assert!(!is_blocked());
        let inside = block_on(async {
            let before = is_blocked();
            (before, block_on(async { is_blocked() }), is_blocked())
        });
        assert_eq!((inside, is_blocked()), ((true, true, true), false));
        let panicked = std::panic::catch_unwind(|| block_on(async { panic!("in a future") }));
        assert!(panicked.is_err() && !is_blocked());
    }
}
