//! A standard and a depthwise-separable convolution of the same shape, side by side.
//!
//! `cargo run --release --example separable`. Without a GPU, put `scripts/headless` before it.

use std::time::Instant;

use gpuconv::verify::Data;
use gpuconv::{Chain, GpuConv, Layer, Result, Separable, Shape, Tensor, cost};

fn main() -> Result<()> {
    let gpu = GpuConv::new()?;
    println!("on {}\n", gpu.device().adapter_info().name);
    // A 3x3 filter for each input channel, then a 1x1 convolution that mixes the channels.
    let separable = Separable::new(512, 1024, 3).stride(2).padding(1);
    let input = Shape::from([1, 512, 128, 128]);
    let columns = [
        column(&gpu, "standard", &Chain::from(separable.standard()), input)?,
        column(&gpu, "separable", &Chain::from(&separable), input)?,
    ];
    for (line, (name, standard)) in columns[0].iter().enumerate() {
        println!("{name:18} {standard:>28} {:>40}", columns[1][line].1);
    }

    let [standard, separable_cost] =
        [cost::chain(&separable.standard().into(), input)?, cost::chain(&Chain::from(&separable), input)?];
    let ratio = |separable: u64, standard: u64| separable as f64 / standard as f64;
    println!("\nparameters, separable / standard: {}", ratio(separable_cost.params, standard.params));
    println!("mult-adds, separable / standard:  {}", ratio(separable_cost.mult_adds, standard.mult_adds));

    // The oracle is slow, so it checks a crop: the same weights, 9x9 pixels, 25 outputs of each channel.
    let crop = Shape::from([1, 512, 9, 9]);
    for (name, chain) in [("standard", Chain::from(separable.standard())), ("separable", Chain::from(&separable))] {
        println!("{name}: largest error against the CPU on {crop}: {:.1e}", largest_error(&gpu, &chain, crop)?);
    }
    Ok(())
}

/// A column of the table: a chain's cost and speed on an input, line by line.
fn column(gpu: &GpuConv, name: &str, chain: &Chain, input: Shape) -> Result<Vec<(&'static str, String)>> {
    let cost = cost::chain(chain, input)?;
    let (layer, x) = layer(gpu, chain, input)?;
    let y = layer.forward(&x)?;
    let milliseconds = measure(gpu, &layer, &x, &y)?;
    Ok(vec![
        ("", name.into()),
        ("input", input.to_string()),
        ("output", y.shape().to_string()),
        ("parameters", cost.params.to_string()),
        ("mult-adds", cost.mult_adds.to_string()),
        ("bytes, unfused", cost.bytes_unfused.to_string()),
        ("bytes, fused", cost.bytes_fused.to_string()),
        ("kernels", layer.schedule(input, x.layout())?.name()),
        ("time", format!("{milliseconds:.2} ms")),
        ("speed", format!("{:.1} GFLOP/s", 2e-6 * cost.mult_adds as f64 / milliseconds)),
    ])
}

/// A layer with random weights, and a random input for it.
fn layer(gpu: &GpuConv, chain: &Chain, input: Shape) -> Result<(Layer, Tensor)> {
    let data = Data::random("example", chain, input)?;
    Ok((gpu.chain(chain, &data.weights())?, gpu.upload(&data.input, input)?))
}

/// The minimum time of three runs in milliseconds, from submission to completion.
fn measure(gpu: &GpuConv, layer: &Layer, x: &Tensor, y: &Tensor) -> Result<f64> {
    let bound = layer.bind(x, y)?;
    let mut best = f64::INFINITY;
    for _ in 0..3 {
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        bound.encode(&mut encoder);
        gpu.wait()?;
        let start = Instant::now();
        gpu.queue().submit([encoder.finish()]);
        gpu.wait()?;
        best = best.min(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(best)
}

fn largest_error(gpu: &GpuConv, chain: &Chain, crop: Shape) -> Result<f64> {
    let data = Data::random("example", chain, crop)?;
    let layer = gpu.chain(chain, &data.weights())?;
    let values = gpu.download(&layer.forward(&gpu.upload(&data.input, crop)?)?)?;
    let expected = data.answer(chain, crop)?.values;
    Ok(values.iter().zip(&expected).map(|(&value, expected)| (f64::from(value) - expected).abs()).fold(0.0, f64::max))
}
