//! Error scopes: what a device has against calls to it.

use crate::model::error::{Error, Result};
use crate::runtime::device::Device;

/// All errors. Of several the first filter's come first.
pub const ALL: [wgpu::ErrorFilter; 3] =
    [wgpu::ErrorFilter::OutOfMemory, wgpu::ErrorFilter::Internal, wgpu::ErrorFilter::Validation];

impl Device {
    /// Makes calls to the device at once, and turns the errors that they raise into ours. Only the errors are awaited.
    pub fn scoped<T>(&self, calls: impl FnOnce() -> T) -> impl Future<Output = Result<T>> {
        let caught = self.alive().map(|()| self.caught(ALL, calls));
        async move {
            let (value, error) = caught?.await;
            // What a lost device says to calls is no news of them.
            self.check_lost()?;
            error.map_or(Ok(value), |error| Err(raised(error)))
        }
    }

    /// Makes calls at once, in error scopes, which end before this returns: scopes are the thread's, and others may be
    /// opened on it while the errors are awaited. On native devices those are there at once.
    pub fn caught<T, const N: usize>(
        &self,
        filters: [wgpu::ErrorFilter; N],
        calls: impl FnOnce() -> T,
    ) -> impl Future<Output = (T, Option<wgpu::Error>)> {
        let mut scopes = filters.map(|filter| self.device.push_error_scope(filter));
        let value = calls();
        // In the reverse order.
        scopes.reverse();
        let errors = scopes.map(wgpu::ErrorScopeGuard::pop);
        async move {
            let mut first = None;
            for error in errors {
                first = error.await.or(first);
            }
            (value, first)
        }
    }
}

/// What an error scope caught.
pub fn raised(error: wgpu::Error) -> Error {
    match error {
        wgpu::Error::OutOfMemory { source } => Error::OutOfMemory(source.to_string()),
        wgpu::Error::Internal { description, .. } => Error::Driver(description),
        wgpu::Error::Validation { description, .. } => Error::Validation(description),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_of_a_scope_has_its_own() {
        let text = || "what it says".to_string();
        let source = || text().into();
        assert_eq!(raised(wgpu::Error::OutOfMemory { source: source() }), Error::OutOfMemory(text()));
        let internal = wgpu::Error::Internal { source: source(), description: text() };
        assert_eq!(raised(internal), Error::Driver(text()));
        let validation = wgpu::Error::Validation { source: source(), description: text() };
        assert_eq!(raised(validation), Error::Validation(text()));
    }
}
