//! Threads. In a browser there is only one, and it does the work of all.

use crate::model::error::Result;

#[cfg(not(target_arch = "wasm32"))]
pub use native::{apart, beside, each};
#[cfg(target_arch = "wasm32")]
pub use web::{apart, each};

/// How many threads can run at the same time, if the system says so.
pub fn available() -> Option<usize> {
    #[cfg(not(target_arch = "wasm32"))]
    return std::thread::available_parallelism().map(usize::from).ok();
    #[cfg(target_arch = "wasm32")]
    return crate::runtime::browser::cores();
}

/// Has the thread's next `park` return at once.
#[cfg(not(target_arch = "wasm32"))]
pub fn wake_self() {
    std::thread::current().unpark();
}

/// Puts the thread to sleep.
#[cfg(not(target_arch = "wasm32"))]
pub fn sleep(time: std::time::Duration) {
    std::thread::sleep(time);
}

#[cfg(not(target_arch = "wasm32"))]
mod native {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_intrusive::channel::shared::oneshot_channel;

    use super::{Result, available};
    use crate::model::error::Error;
    use crate::runtime::block::block_on;
    use crate::runtime::device::lock;

    /// Runs `help` on some threads while the caller's runs `work`. Returns when all are done.
    pub fn beside<T>(helpers: usize, help: impl Fn() + Sync, work: impl FnOnce() -> T) -> T {
        std::thread::scope(|scope| {
            (0..helpers).for_each(|_| {
                scope.spawn(&help);
            });
            work()
        })
    }

    /// Does some work for each item of a list, on as many threads as can run at the same time, and stops at an error.
    /// It blocks: the caller's thread is one of them.
    pub async fn each<T: Sync>(list: &[T], work: impl AsyncFn(&T) -> Result<()> + Sync) -> Result<()> {
        let (next, failed) = (AtomicUsize::new(0), Mutex::new(None));
        let thread = || {
            while let Some(item) = list.get(next.fetch_add(1, Ordering::Relaxed)) {
                if let Err(error) = block_on(work(item)) {
                    lock(&failed).get_or_insert(error);
                    next.store(list.len(), Ordering::Relaxed);
                }
            }
        };
        beside(available().unwrap_or(2).min(list.len()).saturating_sub(1), thread, thread);
        let failed = lock(&failed).take();
        failed.map_or(Ok(()), Err)
    }

    /// Starts a thread for some work.
    pub fn apart<F: Future<Output = Result<()>>, W: FnOnce() -> F + Send + 'static>(
        name: &str,
        work: W,
    ) -> impl Future<Output = Result<()>> + Send + use<F, W> {
        let (sender, receiver) = oneshot_channel();
        let thread = std::thread::Builder::new().name(name.into()).spawn(move || {
            let _ = sender.send(block_on(work()));
        });
        let ended_early = Error::Internal(format!("the thread \"{name}\" ended early"));
        async move {
            thread.map_err(|error| Error::Driver(error.to_string()))?;
            receiver.receive().await.unwrap_or(Err(ended_early))
        }
    }
}

#[cfg(target_arch = "wasm32")]
mod web {
    use super::Result;

    /// Does some work for each item of a list, and stops at an error.
    pub async fn each<T>(list: &[T], work: impl AsyncFn(&T) -> Result<()>) -> Result<()> {
        for item in list {
            work(item).await?;
        }
        Ok(())
    }

    /// Does some work, once it is polled.
    pub async fn apart<F: Future<Output = Result<()>>>(_name: &str, work: impl FnOnce() -> F) -> Result<()> {
        work().await
    }
}
