//! Copies of bands, where these cannot be bound as they lie in their tensors.

use std::sync::Arc;

use crate::kernels::copy::{self, Unit};
use crate::kernels::fold;
use crate::model::error::{Error, Result};
use crate::planner::division::{Copy, Division, Part, Way};
use crate::runtime::device::{Device, Pipeline};
use crate::runtime::tensor::Tensor;

/// What all copies of a plan need.
pub struct Copies {
    /// For each unit that is copied at a time, if it is used.
    pipelines: [Option<Arc<Pipeline>>; Unit::ALL.len()],
    /// The parameters of all, in their order.
    params: wgpu::Buffer,
    stride: u64,
}

/// A copy that is bound to its tensors.
pub struct BoundCopy {
    pipeline: Arc<Pipeline>,
    group: wgpu::BindGroup,
    grid: [u32; 3],
}

impl Copies {
    /// The copies of a division, if it has some.
    pub async fn new(device: &Device, division: &Division) -> Result<Option<Self>> {
        let ways = division.parts.iter().flat_map(Part::accesses).map(|access| &access.way);
        let copies: Vec<_> = ways.flat_map(Way::copies).collect();
        if copies.is_empty() {
            return Ok(None);
        }
        let mut pipelines = [None, None, None];
        for (pipeline, unit) in pipelines.iter_mut().zip(Unit::ALL) {
            if copies.iter().any(|copy| copy.unit == unit) {
                *pipeline = Some(device.pipeline(copy::NAME, &copy::pass(unit)).await?);
            }
        }
        let alignment = device.device.limits().min_uniform_buffer_offset_alignment;
        let stride = size_of::<copy::Params>().next_multiple_of(alignment as usize);
        let mut bytes = Vec::with_capacity(copies.len() * stride);
        for copy in &copies {
            bytes.extend_from_slice(bytemuck::bytes_of(&copy.params));
            bytes.resize(bytes.len().next_multiple_of(stride), 0);
        }
        let params = device.buffer_with("parameters", &bytes, wgpu::BufferUsages::UNIFORM).await?;
        Ok(Some(Self { pipelines, params, stride: stride as u64 }))
    }

    /// Bytes of their parameters.
    pub fn parameters(&self) -> u64 {
        self.params.size()
    }

    /// Binds copy number `index`: of a band of `whole` into `band`, or back if it `writes`.
    pub fn bind(
        &self,
        device: &Device,
        index: u64,
        copy: &Copy,
        whole: &Tensor,
        band: &Tensor,
        writes: bool,
    ) -> Result<BoundCopy> {
        let missing = || Error::Internal(format!("a copy of a band of {} has no pipeline", whole.shape()));
        let pipeline = self.pipelines[copy.unit as usize].clone().ok_or_else(missing)?;
        let grid = fold(copy.params.workgroups(), device.caps.max_workgroups).ok_or_else(|| Error::TooLarge {
            what: format!("the grid of a copy of {}", band.shape()),
            needed: copy.params.workgroups(),
            limit: u64::from(device.caps.max_workgroups).pow(2),
        })?;
        let params = wgpu::BindingResource::Buffer(wgpu::BufferBinding {
            buffer: &self.params,
            offset: index * self.stride,
            size: std::num::NonZeroU64::new(size_of::<copy::Params>() as u64),
        });
        let (window, band) = (whole.window(copy.window.clone()), band.binding());
        let [source, destination] = if writes { [band, window] } else { [window, band] };
        let entries = [params, source, destination];
        let entry = |(binding, resource)| wgpu::BindGroupEntry { binding, resource };
        let entries: Vec<_> = (0..).zip(entries).map(entry).collect();
        let group = device.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("gpuconv"),
            layout: &pipeline.layout,
            entries: &entries,
        });
        Ok(BoundCopy { pipeline, group, grid })
    }
}

impl BoundCopy {
    /// Records the dispatch.
    pub fn dispatch(&self, pass: &mut wgpu::ComputePass<'_>) {
        pass.set_pipeline(&self.pipeline.pipeline);
        pass.set_bind_group(0, &self.group, &[]);
        let [x, y, z] = self.grid;
        pass.dispatch_workgroups(x, y, z);
    }
}
