//! A run on its own, with data, ready to be computed by any recipe.

use crate::kernels::Recipe;
use crate::model::chain::Chain;
use crate::model::error::Result;
use crate::model::shape::{Layout, Shape};
use crate::planner::Schedule;
use crate::runtime::gpu::GpuConv;
use crate::runtime::layer::{BoundLayer, Inputs, Layer};
use crate::runtime::tensor::Tensor;
use crate::verify::{Data, Oracle, Report};

/// Multiply-adds of a link for the oracle: it takes about a second for them, four times over.
const MOST_CHECKED: u64 = 300_000_000;

/// A run's layer and tensors, and the oracle's answer once it is asked for.
pub struct Subject {
    gpu: GpuConv,
    name: String,
    chain: Chain,
    shapes: Vec<Shape>,
    layout: Layout,
    layer: Layer,
    input: Tensor,
    residual: Option<Tensor>,
    scale: Option<Tensor>,
    output: Tensor,
    oracle: Option<Oracle>,
}

impl Subject {
    pub async fn new(gpu: &GpuConv, name: &str, chain: &Chain, input: Shape, layout: Layout) -> Result<Self> {
        let shapes = chain.shapes(input)?;
        let data = Data::random(name, chain, input)?;
        let (output, [of_input, dtype]) = (shapes[shapes.len() - 1], chain.ends());
        let residual = match &data.residual {
            Some(values) => Some(gpu.upload_of_async(values, output, layout, dtype).await?),
            None => None,
        };
        let scale = match (&data.scale, chain.outside_scale_shape(&shapes)) {
            (Some(values), Some(shape)) => Some(gpu.upload_of_async(values, shape, layout, dtype).await?),
            _ => None,
        };
        Ok(Self {
            name: name.into(),
            layer: gpu.chain(chain, &data.weights())?,
            // In any order: values do not change times.
            input: gpu.upload_of_async(&data.input, input, layout, of_input).await?,
            residual,
            scale,
            output: gpu.empty_of_async(output, layout, dtype).await?,
            chain: chain.clone(),
            gpu: gpu.clone(),
            oracle: None,
            shapes,
            layout,
        })
    }

    /// The schedule that computes the run by a recipe.
    pub fn schedule(&self, recipe: &Recipe) -> Schedule {
        Schedule::of_one(&self.chain, &self.shapes, recipe, self.gpu.caps())
    }

    /// Compiles and binds a schedule.
    pub async fn bind(&self, schedule: &Schedule) -> Result<BoundLayer> {
        self.layer.fix(self.shapes[0], self.layout, schedule.clone()).await?;
        let (residual, scale) = (self.residual.as_ref(), self.scale.as_ref());
        self.layer.bind_async(Inputs { input: &self.input, residual, scale }, &self.output).await
    }

    /// What the oracle says of a schedule.
    pub async fn check(&mut self, schedule: &Schedule) -> Result<Report> {
        let oracle = match self.oracle.take() {
            Some(oracle) => oracle,
            None => Oracle::of_chain(&self.name, self.chain.clone(), self.shapes[0], self.layout, MOST_CHECKED)?,
        };
        // SAFETY: tuning makes schedules of recipes that kernels gave for this chain and input.
        unsafe { self.oracle.insert(oracle).check_as_it_is_async(&self.gpu, schedule) }.await
    }
}
