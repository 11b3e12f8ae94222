//! The one place where a thread waits for a future. On the web none can, and this is not compiled.

use std::cell::Cell;

thread_local! {
    static IS_BLOCKED: Cell<bool> = const { Cell::new(false) };
}

/// Waits for a future. Where that waits for the device, the thread polls it.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Reset(bool);

    impl Drop for Reset {
        fn drop(&mut self) {
            IS_BLOCKED.set(self.0);
        }
    }

    let _reset = Reset(IS_BLOCKED.replace(true));
    pollster::block_on(future)
}

/// Whether this thread waits in [`block_on`], so that a future may block it. If not, it is an executor's, and has others to
/// poll.
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
