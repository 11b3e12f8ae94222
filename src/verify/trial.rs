//! One run of a schedule between guards.

use crate::model::chain::Chain;
use crate::model::dtype::DType;
use crate::model::error::Result;
use crate::model::shape::{Layout, Shape, from_nchw, to_nchw};
use crate::planner::Schedule;
use crate::runtime::gpu::GpuConv;
use crate::runtime::layer::{Inputs, Layer};
use crate::runtime::tensor::Tensor;

use super::{Data, Report};

/// A NaN that no arithmetic makes, and that f16 has as well.
const POISON: u32 = 0x7FC5_A000;

/// A chain and its data, to be run on a device.
pub struct Trial<'a> {
    pub chain: &'a Chain,
    pub input: Shape,
    pub layout: Layout,
    pub data: &'a Data,
}

impl Trial<'_> {
    /// Runs a schedule and gives its outputs, NCHW.
    pub async fn run(&self, gpu: &GpuConv, schedule: &Schedule, report: &mut Report) -> Result<Vec<f32>> {
        let layer = gpu.chain(self.chain, &self.data.weights())?;
        layer.fix(self.input, self.layout, schedule.clone()).await?;
        self.run_layer(gpu, &layer, report).await
    }

    /// Runs a layer and gives its outputs, NCHW. Input and output lie inside of larger buffers that are filled with
    /// NaNs, the output's own place too. Counts outputs that were not written and elements written outside.
    pub async fn run_layer(&self, gpu: &GpuConv, layer: &Layer, report: &mut Report) -> Result<Vec<f32>> {
        let Self { chain, layout, data, .. } = *self;
        let [of_input, dtype] = chain.ends();
        let shapes = chain.shapes(self.input)?;
        let output_shape = shapes[shapes.len() - 1];
        let input = guarded(gpu, &data.input, self.input, layout, of_input).await?;
        let residual = match data.residual.as_ref().zip(chain.outside_residual()) {
            Some((values, link)) => Some(guarded(gpu, values, shapes[link + 1], layout, dtype).await?),
            None => None,
        };
        let scale = match data.scale.as_ref().zip(chain.outside_scale_shape(&shapes)) {
            Some((values, shape)) => Some(guarded(gpu, values, shape, layout, dtype).await?),
            None => None,
        };
        let poison = vec![f32::from_bits(POISON); output_shape.len() as usize];
        let output = guarded(gpu, &poison, output_shape, layout, dtype).await?;
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        let inputs = Inputs { input: &input, residual: residual.as_ref(), scale: scale.as_ref() };
        layer.encode_async(&mut encoder, inputs, &output).await?;
        gpu.queue().submit([encoder.finish()]);
        let (element, buffer) = (dtype.bytes(), output.buffer().clone());
        let (start, len) = ((output.offset() / element) as usize, output_shape.len() as usize);
        let whole: Shape = [1, 1, 1, (2 * start + len) as u32].into();
        let all = gpu.download_async(&Tensor::from_buffer_of(buffer, 0, whole, Layout::Nchw, dtype)?).await?;
        let is_poison = |value: &&f32| value.to_bits() == POISON;
        let guards = all[..start].iter().chain(&all[start + len..]);
        report.stray += guards.filter(|value| !is_poison(value)).count();
        let values = &all[start..start + len];
        report.unwritten += values.iter().filter(is_poison).count();
        Ok(to_nchw(values, output_shape, layout))
    }
}

/// A tensor of NCHW values between two guard regions of poison.
async fn guarded(gpu: &GpuConv, values: &[f32], shape: Shape, layout: Layout, dtype: DType) -> Result<Tensor> {
    // Bytes, a multiple of every element's.
    let guard = u64::from(gpu.caps().storage_offset_alignment.max(256));
    let poison = vec![f32::from_bits(POISON); (guard / dtype.bytes()) as usize];
    let values = from_nchw(values, shape, layout);
    let all = [&poison[..], &values, &poison].concat();
    let whole = gpu.upload_of_async(&all, [1, 1, 1, all.len() as u32], Layout::Nchw, dtype).await?;
    Tensor::from_buffer_of(whole.buffer().clone(), guard, shape, layout, dtype)
}
