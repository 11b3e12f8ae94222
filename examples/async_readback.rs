//! Results without waiting: a program with a loop of its own (frames, events, requests) starts convolutions, goes on,
//! and takes each answer when it is there.
//!
//! `cargo run --release --example async_readback`, with `scripts/headless` before it where there is no GPU.

use std::cell::RefCell;
use std::error::Error;
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures::executor::LocalPool;
use futures::task::LocalSpawnExt;
use gpuconv::{Conv2d, GpuConv, Layout, Weights};

/// Images to convolve, one started every fourth frame.
pub const IMAGES: u32 = 8;

/// The outputs in the middle of each image, in the order in which they came.
pub fn middles() -> Result<Vec<(u32, f32)>, Box<dyn Error>> {
    let gpu = GpuConv::new()?;
    let conv = Conv2d::new(32, 64, 3).padding(1).bias(false);
    let layer = gpu.conv2d(&conv, Weights::without_bias(&[1.0; 64 * 32 * 9]))?;
    let x = gpu.empty([1, 32, 112, 112], Layout::Nchw)?;
    let y = gpu.empty([1, 64, 112, 112], Layout::Nchw)?;
    // The first time compiles, which takes a moment: before the loop.
    layer.forward(&x)?;
    gpu.wait()?;

    let (mut pool, answers) = (LocalPool::new(), Rc::new(RefCell::new(Vec::new())));
    let (mut frame, mut started, mut longest) = (0, 0, Duration::ZERO);
    while answers.borrow().len() < IMAGES as usize {
        let start = Instant::now();
        if started < IMAGES && frame % 4 == 0 {
            let (image, begun, answers) = (started, Instant::now(), answers.clone());
            // The queue keeps the order, so all images may share the tensors.
            gpu.write(&x, &vec![image as f32; 32 * 112 * 112])?;
            let mut encoder = gpu.device().create_command_encoder(&Default::default());
            layer.encode(&mut encoder, &x, &y)?;
            let values = gpu.encode_download(&mut encoder, &y)?;
            gpu.queue().submit([encoder.finish()]);
            let values = values.read_async();
            pool.spawner().spawn_local(async move {
                let middle = values.await.map(|values| values[values.len() / 2 + 56 * 112 + 56]);
                println!("frame {frame:3}: image {image} was started, and is here after {:.1?}", begun.elapsed());
                answers.borrow_mut().push((image, middle));
            })?;
            started += 1;
        }
        // Neither of these waits: wgpu says what is done, the futures whose answer is there go on.
        gpu.device().poll(wgpu::PollType::Poll)?;
        pool.run_until_stalled();
        longest = longest.max(start.elapsed());
        // Here the program does its own work.
        std::thread::sleep(Duration::from_millis(2));
        frame += 1;
    }
    println!("{IMAGES} images in {frame} frames; what gpuconv took of the longest frame: {longest:.1?}");
    answers.take().into_iter().map(|(image, middle)| Ok((image, middle?))).collect()
}

pub fn main() -> Result<(), Box<dyn Error>> {
    middles().map(drop)
}
