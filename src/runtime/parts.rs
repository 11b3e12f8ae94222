//! What a layer keeps for an input size, the parts of a division with their plans, and how these are bound.

use std::sync::Arc;

use crate::model::dtype::DType;
use crate::model::error::{Error, Result};
use crate::model::shape::Shape;
use crate::planner::division::{Access, Division, Source, Spot, Way};
use crate::runtime::copies::{BoundCopy, Copies};
use crate::runtime::device::Device;
use crate::runtime::plan::{Bound, Callers, Plan};
use crate::runtime::tensor::Tensor;

/// How inputs of one size are computed.
pub struct Planned {
    pub division: Division,
    /// A plan for each kind of part.
    plans: Vec<Arc<Plan>>,
    copies: Option<Copies>,
    /// The sizes of the workspace's buffers: those that all plans do with, then those of the division.
    pub workspace: Vec<u64>,
    /// How many are the plans'.
    of_plans: usize,
}

/// Dispatches, bound to their tensors.
pub enum Work {
    Plan(Bound),
    Copy(BoundCopy),
}

impl Work {
    /// Records the dispatches.
    pub fn dispatch(&self, pass: &mut wgpu::ComputePass<'_>) {
        match self {
            Self::Plan(bound) => bound.dispatch(pass),
            Self::Copy(copy) => copy.dispatch(pass),
        }
    }
}

impl Planned {
    pub fn new(division: Division, plans: Vec<Arc<Plan>>, copies: Option<Copies>) -> Self {
        let of_plans = division.plans_workspace().len();
        Self { workspace: division.workspace(), division, plans, copies, of_plans }
    }

    /// The shape of a tensor of the chain.
    pub fn shape(&self, tensor: usize) -> Shape {
        self.division.shapes[tensor]
    }

    /// Whether one of its plans reads these weights.
    pub fn reads(&self, weights: &Arc<wgpu::Buffer>) -> bool {
        self.plans.iter().any(|plan| plan.weights().any(|own| Arc::ptr_eq(own, weights)))
    }

    /// Bytes of its parameters.
    pub fn parameters(&self) -> u64 {
        let plans: u64 = self.plans.iter().map(|plan| plan.parameters()).sum();
        plans + self.copies.as_ref().map_or(0, Copies::parameters)
    }

    /// Binds everything to tensors, which were checked, and a workspace that is large enough.
    pub async fn bind(&self, device: &Device, workspace: &[wgpu::Buffer], callers: Callers<'_>) -> Result<Vec<Work>> {
        let (mut work, mut copied) = (Vec::new(), 0);
        for part in &self.division.parts {
            let mut before = Vec::new();
            let input = self.bind_access(device, workspace, callers, &part.input, &mut copied, &mut before).await?;
            let mut others = [None, None];
            for (other, access) in others.iter_mut().zip([&part.residual, &part.scale]) {
                let Some(access) = access else { continue };
                *other = Some(self.bind_access(device, workspace, callers, access, &mut copied, &mut before).await?);
            }
            let [residual, scale] = [others[0].as_ref(), others[1].as_ref()];
            let mut after = Vec::new();
            let output = self.bind_access(device, workspace, callers, &part.output, &mut copied, &mut after).await?;
            let plan = self.plans[part.kind].clone();
            work.extend(before);
            let tensors = Callers { input: &input, residual, scale, output: &output };
            work.push(Work::Plan(Bound::new(device, plan, workspace, tensors).await?));
            work.extend(after);
        }
        Ok(work)
    }

    /// The tensor that a plan is bound to for a part of another, and the copies from or to it. `copied` counts copies.
    async fn bind_access(
        &self,
        device: &Device,
        workspace: &[wgpu::Buffer],
        callers: Callers<'_>,
        access: &Access,
        copied: &mut u64,
        work: &mut Vec<Work>,
    ) -> Result<Tensor> {
        let like = (callers.input, access.source.dtype(callers.input.dtype()));
        let whole = match access.source {
            Source::Tensor(0) => callers.input.clone(),
            Source::Tensor(last) if last + 1 == self.division.shapes.len() => callers.output.clone(),
            Source::Tensor(tensor) => self.placed(workspace, like, Spot::Tensor(tensor), self.shape(tensor))?,
            Source::Sums { link, shape } => self.placed(workspace, like, Spot::Sums(link), shape)?,
            Source::Residual => callers.residual.cloned().ok_or_else(|| no_tensor(access.spot))?,
            Source::Scale => callers.scale.cloned().ok_or_else(|| no_tensor(access.spot))?,
        };
        let copies = match &access.way {
            Way::Direct(offset) => return Ok(whole.part(*offset, access.shape)),
            Way::Copied(copies) => copies,
        };
        let band = self.placed(workspace, like, access.spot, access.shape)?;
        let writes = matches!(access.spot, Spot::Output(_));
        let shared = self.copies.as_ref().ok_or_else(|| no_tensor(access.spot))?;
        let bind = || {
            let numbered = (*copied..).zip(copies);
            numbered.map(|(index, copy)| shared.bind(device, index, copy, &whole, &band, writes)).collect::<Result<_>>()
        };
        let bound: Vec<_> = device.scoped(bind).await??;
        *copied += bound.len() as u64;
        work.extend(bound.into_iter().map(Work::Copy));
        Ok(band)
    }

    /// A tensor in the workspace: like another one, but of its own type.
    fn placed(
        &self,
        workspace: &[wgpu::Buffer],
        (like, dtype): (&Tensor, DType),
        spot: Spot,
        shape: Shape,
    ) -> Result<Tensor> {
        let span = self.division.places.get(&spot).ok_or_else(|| no_tensor(spot))?;
        let buffer = workspace.get(self.of_plans + span.buffer).ok_or_else(|| no_tensor(spot))?;
        Ok(like.in_workspace(buffer, span.offset, shape, dtype))
    }
}

fn no_tensor(spot: Spot) -> Error {
    Error::Internal(format!("a band's {spot:?} has no place"))
}
