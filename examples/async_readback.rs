//! Read-back without blocking: a program with its own loop (frames, events, requests) starts convolutions, continues,
//! and takes each result when it is ready.
//!
//! `cargo run --release --example async_readback`. Without a GPU, put `scripts/headless` before it.

use std::cell::RefCell;
use std::error::Error;
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures::executor::LocalPool;
use futures::task::LocalSpawnExt;
use gpuconv::{Conv2d, GpuConv, Layout, Weights};

/// The number of images. One is started every fourth frame.
pub const IMAGES: u32 = 8;

/// The output value in the middle of each image, in the order in which the results arrived.
pub fn middles() -> Result<Vec<(u32, f32)>, Box<dyn Error>> {
    let gpu = GpuConv::new()?;
    let conv = Conv2d::new(32, 64, 3).padding(1).bias(false);
    let layer = gpu.conv2d(&conv, Weights::without_bias(&[1.0; 64 * 32 * 9]))?;
    let x = gpu.empty([1, 32, 112, 112], Layout::Nchw)?;
    let y = gpu.empty([1, 64, 112, 112], Layout::Nchw)?;
    // Compile before the loop, because that takes a moment.
    layer.forward(&x)?;
    gpu.wait()?;

    let (mut pool, answers) = (LocalPool::new(), Rc::new(RefCell::new(Vec::new())));
    let (mut frame, mut started, mut longest) = (0, 0, Duration::ZERO);
    while answers.borrow().len() < IMAGES as usize {
        let start = Instant::now();
        if started < IMAGES && frame % 4 == 0 {
            let (image, begun, answers) = (started, Instant::now(), answers.clone());
            // The queue runs commands in order, so all images can share the tensors.
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
        // Neither of these blocks: wgpu marks what has finished, and futures whose values are ready make progress.
        gpu.device().poll(wgpu::PollType::Poll)?;
        pool.run_until_stalled();
        longest = longest.max(start.elapsed());
        // Here the program does its own work.
        std::thread::sleep(Duration::from_millis(2));
        frame += 1;
    }
    println!("{IMAGES} images in {frame} frames; gpuconv took at most {longest:.1?} of a frame");
    answers.take().into_iter().map(|(image, middle)| Ok((image, middle?))).collect()
}

pub fn main() -> Result<(), Box<dyn Error>> {
    middles().map(drop)
}
