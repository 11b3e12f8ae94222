//! Times on the device's own clock.

use gpuconv::{BoundLayer, GpuConv};

use super::{Failure, Outcome};

/// Two timestamps, one before and one after a compute pass, and the way back for them.
pub struct Timer {
    queries: wgpu::QuerySet,
    /// Where the device puts the timestamps.
    resolved: wgpu::Buffer,
    /// Where the host reads them.
    readback: wgpu::Buffer,
    /// Nanoseconds a tick.
    period: f64,
}

/// Two timestamps of eight bytes.
const BYTES: u64 = 16;

impl Timer {
    /// A timer, if the device has timestamps.
    pub fn new(gpu: &GpuConv) -> Outcome<Option<Self>> {
        if !gpu.caps().timestamps {
            return Ok(None);
        }
        let device = gpu.device();
        let buffer = |usage| {
            let label = Some("timestamps");
            device.create_buffer(&wgpu::BufferDescriptor { label, size: BYTES, usage, mapped_at_creation: false })
        };
        scoped(gpu, || {
            Some(Self {
                queries: device.create_query_set(&wgpu::QuerySetDescriptor {
                    label: Some("timestamps"),
                    ty: wgpu::QueryType::Timestamp,
                    count: 2,
                }),
                resolved: buffer(wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC),
                readback: buffer(wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST),
                period: gpu.queue().get_timestamp_period().into(),
            })
        })
    }

    /// Runs a layer in a compute pass of its own; the pass's milliseconds.
    pub fn milliseconds(&self, gpu: &GpuConv, layer: &BoundLayer) -> Outcome<f64> {
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        let timestamp_writes = Some(wgpu::ComputePassTimestampWrites {
            query_set: &self.queries,
            beginning_of_pass_write_index: Some(0),
            end_of_pass_write_index: Some(1),
        });
        let descriptor = wgpu::ComputePassDescriptor { label: Some("timed"), timestamp_writes };
        layer.dispatch(&mut encoder.begin_compute_pass(&descriptor));
        encoder.resolve_query_set(&self.queries, 0..2, &self.resolved, 0);
        encoder.copy_buffer_to_buffer(&self.resolved, 0, &self.readback, 0, BYTES);
        gpu.queue().submit([encoder.finish()]);
        // The outcome of the mapping shows when its range is asked for.
        self.readback.map_async(wgpu::MapMode::Read, .., |_| {});
        gpu.wait()?;
        let view = self
            .readback
            .get_mapped_range(..)
            .map_err(|error| Failure::Device(format!("the timestamps cannot be read: {error}")))?;
        let ticks: Vec<u64> = bytemuck::pod_collect_to_vec(&view);
        drop(view);
        self.readback.unmap();
        // A clock that was set back between the two gives no time.
        Ok(ticks[1].saturating_sub(ticks[0]) as f64 * self.period / 1e6)
    }
}

/// Runs calls to the device and turns the errors that they raise into a failure.
pub fn scoped<T>(gpu: &GpuConv, calls: impl FnOnce() -> T) -> Outcome<T> {
    let filters = [wgpu::ErrorFilter::OutOfMemory, wgpu::ErrorFilter::Internal, wgpu::ErrorFilter::Validation];
    let scopes = filters.map(|filter| gpu.device().push_error_scope(filter));
    let value = calls();
    // Scopes end in the reverse order.
    let errors = scopes.into_iter().rev().filter_map(|scope| pollster::block_on(scope.pop()));
    match errors.last() {
        None => Ok(value),
        Some(error) => Err(Failure::Device(super::one_line(&error.to_string()))),
    }
}
