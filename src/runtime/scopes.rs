//! Error scopes, which catch the errors of calls to a device.

use crate::model::error::{Error, Result};
#[cfg(target_arch = "wasm32")]
use crate::runtime::browser;
use crate::runtime::device::Device;

/// All kinds of errors, the most important first.
pub const ALL: [wgpu::ErrorFilter; 3] =
    [wgpu::ErrorFilter::OutOfMemory, wgpu::ErrorFilter::Internal, wgpu::ErrorFilter::Validation];

impl Device {
    /// Makes calls to the device, and returns a future of their value, or of the error that they raised. The calls are
    /// made before this returns.
    pub fn scoped<T>(&self, calls: impl FnOnce() -> T) -> impl Future<Output = Result<T>> {
        let caught = self.alive().map(|()| self.caught(ALL, calls));
        async move {
            let (value, error) = caught?.await;
            // The errors of a lost device say nothing about the calls.
            self.check_lost()?;
            error.map_or(Ok(value), |error| Err(raised(error)))
        }
    }

    /// Makes calls in error scopes. The scopes end before this returns, since they belong to the thread, which may open
    /// others while it awaits the errors. Native devices have the errors at once.
    pub fn caught<T, const N: usize>(
        &self,
        filters: [wgpu::ErrorFilter; N],
        calls: impl FnOnce() -> T,
    ) -> impl Future<Output = (T, Option<wgpu::Error>)> {
        #[cfg(not(target_arch = "wasm32"))]
        let mut scopes = filters.map(|filter| self.device.push_error_scope(filter));
        #[cfg(target_arch = "wasm32")]
        let mut scopes = filters.map(|filter| browser::ErrorScope::push(&self.device, filter));
        let value = calls();
        // Scopes end in the reverse order.
        scopes.reverse();
        let errors = scopes.map(|scope| scope.pop());
        async move {
            let mut first = None;
            for error in errors {
                first = error.await.or(first);
            }
            (value, first)
        }
    }
}

/// The library's error for one that a scope caught.
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
