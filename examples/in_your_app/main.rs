//! Convolution inside a program with its own wgpu device and compute passes. One pass draws, gpuconv blurs, and another
//! pass packs the result into bytes. There is one encoder and one submission, and nothing is copied in between.
//!
//! `cargo run --release --example in_your_app` writes in_your_app.png. Without a GPU, put `scripts/headless` before it.

use std::error::Error;

use gpuconv::{Conv2d, GpuConv, Layout, Tensor, Weights};
use wgpu::{Buffer, BufferUsages, util::DownloadBuffer};

/// Rows and columns of the picture.
pub const SIZE: u32 = 256;

/// One of the program's own passes: a pipeline and its bind group.
struct Pass(wgpu::ComputePipeline, wgpu::BindGroup);

impl Pass {
    fn new(device: &wgpu::Device, entry_point: &str, buffers: &[&Buffer]) -> Self {
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(entry_point),
            layout: None,
            module: &device.create_shader_module(wgpu::include_wgsl!("passes.wgsl")),
            entry_point: Some(entry_point),
            compilation_options: Default::default(),
            cache: None,
        });
        let resources = buffers.iter().map(|buffer| buffer.as_entire_binding());
        let entries = (0..).zip(resources).map(|(binding, resource)| wgpu::BindGroupEntry { binding, resource });
        let bindings = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(entry_point),
            layout: &pipeline.get_bind_group_layout(0),
            entries: &entries.collect::<Vec<_>>(),
        });
        Self(pipeline, bindings)
    }

    fn encode(&self, encoder: &mut wgpu::CommandEncoder) {
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(&self.0);
        pass.set_bind_group(0, &self.1, &[]);
        pass.dispatch_workgroups(SIZE * SIZE / 64, 1, 1);
    }
}

/// The program's device. It asks for the features that gpuconv uses, as far as the adapter has them.
async fn device() -> Result<(wgpu::Device, wgpu::Queue), Box<dyn Error>> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
    let adapter = instance.request_adapter(&Default::default()).await?;
    let (required_features, required_limits) = (adapter.features() & GpuConv::wanted_features(), adapter.limits());
    let descriptor = wgpu::DeviceDescriptor { required_features, required_limits, ..Default::default() };
    Ok(adapter.request_device(&descriptor).await?)
}

/// The picture's bytes, four for each pixel.
pub fn picture() -> Result<Vec<u8>, Box<dyn Error>> {
    let (device, queue) = pollster::block_on(device())?;
    let buffer = |values: u32, usage| {
        let size = u64::from(values) * 4;
        device.create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false })
    };
    let [drawn, blurred] = [(); 2].map(|()| buffer(3 * SIZE * SIZE, BufferUsages::STORAGE));
    let rgba = buffer(SIZE * SIZE, BufferUsages::STORAGE | BufferUsages::COPY_SRC);
    let draw = Pass::new(&device, "draw", &[&drawn]);
    let pack = Pass::new(&device, "pack", &[&blurred, &rgba]);

    // gpuconv works on the same device, and on the same buffers.
    let gpu = GpuConv::with_device(device.clone(), queue.clone());
    let blur = Conv2d::depthwise(3, 5).padding(2).bias(false);
    let layer = gpu.depthwise(&blur, Weights::without_bias(&[0.04; 3 * 25]))?;
    let tensor = |buffer| Tensor::from_buffer(buffer, 0, [1, 3, SIZE, SIZE], Layout::Nchw);
    let (x, y) = (tensor(drawn)?, tensor(blurred)?);

    let mut encoder = device.create_command_encoder(&Default::default());
    draw.encode(&mut encoder);
    layer.encode(&mut encoder, &x, &y)?;
    pack.encode(&mut encoder);
    queue.submit([encoder.finish()]);

    // This is only for looking at the picture.
    let (sender, bytes) = std::sync::mpsc::channel();
    DownloadBuffer::read_buffer(&device, &queue, &rgba.slice(..), move |bytes| drop(sender.send(bytes)));
    device.poll(wgpu::PollType::wait_indefinitely())?;
    Ok(bytes.recv()??.to_vec())
}

pub fn main() -> Result<(), Box<dyn Error>> {
    let path = "in_your_app.png";
    image::save_buffer(path, &picture()?, SIZE, SIZE, image::ExtendedColorType::Rgba8)?;
    println!("{path}");
    Ok(())
}
