//! Times of what a compute pass does: by the device's own clock where it has one, else by the host's.

use std::sync::Mutex;
use std::time::Duration;

use futures_intrusive::channel::shared::oneshot_channel;

use crate::model::error::{Error, Result};
#[cfg(not(target_arch = "wasm32"))]
use crate::runtime::block::block_on;
use crate::runtime::clock::Instant;
use crate::runtime::device::{Device, lock};
use crate::runtime::gpu::GpuConv;
use crate::runtime::layer::BoundLayer;

/// Two timestamps of eight bytes.
const BYTES: u64 = 16;
/// A GPU that rests lowers its clock, and raises it only when it was at work for so long: an H200 runs at a sixth of its
/// clock after three seconds of rest, and needs 0.38 s of work to be back.
pub const CLOCK_RISES: Duration = Duration::from_millis(500);
/// It keeps its clock for so long at least when the work ends. The same H200 keeps it for a second.
const CLOCK_STAYS: Duration = Duration::from_millis(400);
/// A pass of work that raises the clock, at least: one that is shorter leaves the GPU at rest between two.
const BUSY: Duration = Duration::from_millis(5);
/// The most runs of a layer in such a pass.
const MOST_RUNS: u32 = 1 << 12;

/// Measures compute passes of one device.
pub struct Timer {
    gpu: GpuConv,
    clock: Option<Clock>,
    /// When the device's clock was last seen to be up.
    up: Mutex<Option<Instant>>,
    /// How long it took to raise it, in all.
    raising: Mutex<Duration>,
}

/// Two timestamps, one before and one after a compute pass, and the way back for them.
struct Clock {
    queries: wgpu::QuerySet,
    /// Where the device puts the timestamps.
    resolved: wgpu::Buffer,
    /// Where the host reads them.
    readback: wgpu::Buffer,
    /// Seconds a tick.
    period: f64,
}

impl Timer {
    /// A timer of a device.
    ///
    /// # Errors
    /// What the device says.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn new(gpu: &GpuConv) -> Result<Self> {
        block_on(Self::new_async(gpu))
    }

    /// As [`Timer::new`], awaited.
    ///
    /// # Errors
    /// As [`Timer::new`].
    pub async fn new_async(gpu: &GpuConv) -> Result<Self> {
        let clock = match gpu.caps().timestamps {
            true => Some(gpu.shared().scoped(|| Clock::new(gpu)).await?),
            false => None,
        };
        Ok(Self { gpu: gpu.clone(), clock, up: Mutex::default(), raising: Mutex::default() })
    }

    /// Whether the device has a clock.
    pub fn has_clock(&self) -> bool {
        self.clock.is_some()
    }

    /// Runs a layer until the clock of a GPU that rested is up, so that times can be compared. It takes half a second,
    /// and nothing if it was called or a pass was timed just now. A software device has no such clock.
    ///
    /// # Errors
    /// What the device says.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn raise_clock(&self, layer: &BoundLayer) -> Result<()> {
        block_on(self.raise_clock_async(layer))
    }

    /// As [`Timer::raise_clock`], awaited.
    ///
    /// # Errors
    /// What the device says.
    pub async fn raise_clock_async(&self, layer: &BoundLayer) -> Result<()> {
        if self.gpu.caps().is_cpu || self.is_up() {
            return Ok(());
        }
        let start = Instant::now();
        let mut runs = 1;
        while start.elapsed() < CLOCK_RISES {
            let seconds = self.layer_async(layer, runs).await? * f64::from(runs);
            if seconds < BUSY.as_secs_f64() {
                runs = MOST_RUNS.min(2 * runs);
            }
        }
        *lock(&self.up) = Some(Instant::now());
        *lock(&self.raising) += start.elapsed();
        Ok(())
    }

    /// How long it took to raise the clock, in all.
    pub fn raising(&self) -> Duration {
        *lock(&self.raising)
    }

    /// Whether the device's clock was up just now.
    fn is_up(&self) -> bool {
        lock(&self.up).is_some_and(|up| up.elapsed() < CLOCK_STAYS)
    }

    /// Runs a layer `count` times in one compute pass, and gives the seconds of one run.
    ///
    /// # Errors
    /// What the device says.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn layer(&self, layer: &BoundLayer, runs: u32) -> Result<f64> {
        block_on(self.layer_async(layer, runs))
    }

    /// As [`Timer::layer`], awaited.
    ///
    /// # Errors
    /// What the device says.
    pub async fn layer_async(&self, layer: &BoundLayer, runs: u32) -> Result<f64> {
        let was_up = self.is_up();
        let seconds = self.pass(|pass| (0..runs).for_each(|_| layer.dispatch(pass))).await?;
        // Much work keeps the clock up.
        if was_up && seconds >= BUSY.as_secs_f64() / 4.0 {
            *lock(&self.up) = Some(Instant::now());
        }
        Ok(seconds / f64::from(runs.max(1)))
    }

    /// The seconds of a compute pass; without a clock on the device those from submission until it is done.
    pub(crate) async fn pass(&self, record: impl FnOnce(&mut wgpu::ComputePass<'_>)) -> Result<f64> {
        let device = self.gpu.shared();
        let commands = device.scoped(|| {
            let mut encoder = device.device.create_command_encoder(&Default::default());
            let timestamp_writes = self.clock.as_ref().map(|clock| wgpu::ComputePassTimestampWrites {
                query_set: &clock.queries,
                beginning_of_pass_write_index: Some(0),
                end_of_pass_write_index: Some(1),
            });
            let descriptor = wgpu::ComputePassDescriptor { label: Some("timed"), timestamp_writes };
            record(&mut encoder.begin_compute_pass(&descriptor));
            if let Some(clock) = &self.clock {
                encoder.resolve_query_set(&clock.queries, 0..2, &clock.resolved, 0);
                encoder.copy_buffer_to_buffer(&clock.resolved, 0, &clock.readback, 0, BYTES);
            }
            encoder.finish()
        });
        let commands = commands.await?;
        let start = Instant::now();
        device.scoped(|| device.queue.submit([commands])).await?;
        match &self.clock {
            Some(clock) => clock.read(device).await,
            None => {
                device.wait().await?;
                Ok(start.elapsed().as_secs_f64())
            }
        }
    }
}

impl Clock {
    fn new(gpu: &GpuConv) -> Self {
        let device = gpu.device();
        let buffer = |usage| {
            let label = Some("timestamps");
            device.create_buffer(&wgpu::BufferDescriptor { label, size: BYTES, usage, mapped_at_creation: false })
        };
        Self {
            queries: device.create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("timestamps"),
                ty: wgpu::QueryType::Timestamp,
                count: 2,
            }),
            resolved: buffer(wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC),
            readback: buffer(wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST),
            period: f64::from(gpu.queue().get_timestamp_period()) * 1e-9,
        }
    }

    /// The seconds between the timestamps.
    async fn read(&self, device: &Device) -> Result<f64> {
        let (sender, mapped) = oneshot_channel();
        self.readback.map_async(wgpu::MapMode::Read, .., move |outcome| {
            let _ = sender.send(outcome);
        });
        // Getting the range fails if the mapping did.
        device.told(mapped).await?;
        device.check_lost()?;
        let view = self.readback.get_mapped_range(..).map_err(|error| Error::Driver(error.to_string()))?;
        let ticks: Vec<u64> = bytemuck::pod_collect_to_vec(&view);
        drop(view);
        self.readback.unmap();
        // A clock that was set back between the two gives no time.
        Ok(ticks[1].saturating_sub(ticks[0]) as f64 * self.period)
    }
}
